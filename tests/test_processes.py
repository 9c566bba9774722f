"""What each process has loaded when it starts, which the tests' own process, having loaded everything, cannot tell."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_REFERENCES = """
import importlib, sys
from server.db import Base
importlib.import_module(sys.argv[1])
for table in Base.metadata.tables.values():
    for key in table.foreign_keys:
        print(key.parent, "->", key.column)
"""

_SERVICES = """
from google.protobuf import descriptor_pool
from server.api import SERVICES
for service in SERVICES:
    print(descriptor_pool.Default().FindServiceByName(service).full_name)
"""


def _said(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("module", ["server.api", "server.worker", "server.commands"])
def test_a_process_knows_every_table_that_another_refers_to(module: str) -> None:
    references = _said(_REFERENCES, module)

    assert "video_calls.bearer_id -> bearers.id" in references


def test_an_api_process_knows_the_descriptors_of_what_it_serves() -> None:
    assert "commonservices.v1.TwilioRequestService" in _said(_SERVICES)
