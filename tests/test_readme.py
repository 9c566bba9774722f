"""The README shows what is in the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_examples_are_the_files_they_name() -> None:
    shown = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", README, re.DOTALL))

    assert shown == {
        f"docs/examples/{path.name}": path.read_text() for path in (ROOT / "docs" / "examples").glob("*.py")
    }


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:server|envoy|protos|docs)/[\w./-]+)`", README))))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists()
