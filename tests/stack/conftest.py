"""One running stack for the tests that only look at it, or break what it repairs by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.running import RunningStack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole local stack, started cold."""
    with running(tmp_path_factory.mktemp("stack") / "data") as stack:
        yield stack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that is not there yet."""
    return tmp_path / "data"
