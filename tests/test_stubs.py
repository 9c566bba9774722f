"""gen/ is what internal services install."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CALLER = """
from commonservices.v1 import status_service_pb2, status_service_pb2_grpc

def ask(stub: status_service_pb2_grpc.StatusServiceAsyncStub) -> None:
    status_service_pb2.GetStatusRequest(unknown=1)
"""


def test_installed_stubs_are_typed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gen", tmp_path / "gen", ignore=shutil.ignore_patterns("__pycache__", "build"))
    uv = str(Path(sys.executable).with_name("uv"))
    options = ["--python", sys.executable, "--offline", "--no-deps", "--no-build-isolation"]
    install = [uv, "pip", "install", "--quiet", *options, "--target", str(tmp_path / "installed")]
    subprocess.run([*install, str(tmp_path / "gen")], check=True)
    (tmp_path / "caller.py").write_text(CALLER)

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache", "caller.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )

    assert 'Unexpected keyword argument "unknown"' in checked.stdout
    assert "Found 1 error" in checked.stdout
