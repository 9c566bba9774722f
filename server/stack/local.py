"""`python -m server run`: which processes make the local stack, and in which order."""

import base64
import hashlib
import os
import secrets
import shlex
import sys
from functools import partial
from pathlib import Path

import click

from server import envoy
from server.config import LocalSettings, Settings
from server.providers.sandbox.settings import BANDWIDTH_TOKEN_PATH
from server.providers.twilio.overrides import RETRIES
from server.stack.errors import StackError
from server.stack.folder import DataFolder, write_private
from server.stack.ports import HOST, accepts, answers, check_is_free, free_port
from server.stack.postgres import ROLE, LocalPostgres
from server.stack.processes import Process
from server.stack.schema import current_revision, newest_revision
from server.stack.supervisor import Stopped, Supervisor

API_PROCESSES = 2
ROOT = Path(__file__).parent.parent.parent
READY_SECONDS = 60.0


class LocalStack:
    """The processes of one data folder."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._base_url = f"http://{HOST}:{settings.common_services_port}"
        self._envoy = envoy.binary(settings.envoy_bin)
        self._folder = DataFolder(settings.common_services_data_dir)
        _check_port_is_free(settings.common_services_port)
        self._supervisor = Supervisor()
        self._postgres: LocalPostgres | None = None
        self._sandbox: str | None = None
        self._made: dict[str, str] = {}

    def run(self) -> None:
        """Start everything, say so, and keep it running until told to stop."""
        self._supervisor.listen_for_signals()
        try:
            self._start()
            self._announce()
            self._supervisor.run()
        except Stopped:
            click.echo("stopped before it was ready", err=True)
        finally:
            self._forget_run()
            self._supervisor.stop()

    def _start(self) -> None:
        settings, supervisor = self._settings, self._supervisor
        # What a run that was killed has left.
        self._forget_run()
        database_url = self._start_postgres()
        self._make_twilio_account()
        self._make_bandwidth_account()
        self._make_zoom_account()
        self._complete(database_url)
        self._prepare(database_url)
        apis = [f"{HOST}:{free_port()}" for _ in range(API_PROCESSES)]
        supervisor.start(
            *(self._process(f"api-{number}", "server", "api", "--listen", api) for number, api in enumerate(apis, 1))
        )
        listen = f"{HOST}:{settings.common_services_port}"
        options = [f"--listen={listen}", *(f"--api={api}" for api in apis), f"--admin-port={free_port()}"]
        kept = [f"--config={self._folder.path / 'envoy.yaml'}", f"--binary={self._envoy.absolute()}"]
        supervisor.start(self._process("envoy", "server", "envoy", *options, *kept))
        supervisor.wait_for(self._base_url, partial(answers, listen, "/api/v1/status"), seconds=READY_SECONDS)
        for api in apis:
            supervisor.wait_for(api, partial(accepts, api), seconds=READY_SECONDS)
        # The carrier starts after Envoy and stops before it: callbacks that nobody takes are lost, as Twilio's are.
        supervisor.start(*self._sandbox_process(), self._process("worker", "server", "worker"))
        if self._sandbox is not None:
            supervisor.wait_for(
                self._sandbox, partial(answers, self._sandbox, "/sandbox/health"), seconds=READY_SECONDS
            )
            write_private(self._folder.sandbox_url, self._made["TWILIO_API_BASE_URL"])
        supervisor.wait_for("A process", supervisor.all_run, seconds=READY_SECONDS)
        write_private(self._folder.env, self._environment())

    def _forget_run(self) -> None:
        """Leave nothing in the folder that is true of a running stack alone."""
        self._folder.sandbox_url.unlink(missing_ok=True)
        self._folder.env.unlink(missing_ok=True)

    def _environment(self) -> str:
        """The settings as a shell reads them, and where the sandbox's commands find it."""
        given = {name.upper(): value for name, value in os.environ.items() if name.lower() in Settings.model_fields}
        folder = {"COMMON_SERVICES_DATA_DIR": str(self._folder.path.absolute())}
        settings = sorted({**given, **self._made, **folder}.items())
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings)

    def _start_postgres(self) -> str:
        if self._settings.database_url is not None:
            return self._settings.database_url.get_secret_value()
        self._postgres = LocalPostgres(self._folder.path / "postgres", log=self._folder.logs / "postgres.log")
        self._postgres.launch()
        self._supervisor.adopt(self._postgres.process)
        return self._postgres.database_url

    def _make_twilio_account(self) -> None:
        """The sandbox's account is made here, because both sides must know it: answers and callbacks are signed."""
        if self._settings.twilio_account_sid is not None:
            return
        self._sandbox = f"{HOST}:{self._sandbox_port()}"
        kept = self._folder.kept
        self._made |= {
            "TWILIO_ACCOUNT_SID": kept("twilio_account_sid", lambda: f"AC{secrets.token_hex(16)}"),
            "TWILIO_AUTH_TOKEN": kept("twilio_auth_token", lambda: secrets.token_hex(16)),
            "TWILIO_API_BASE_URL": f"http://{self._sandbox}",
            "TWILIO_API_KEY_SID": kept("twilio_api_key_sid", lambda: f"SK{secrets.token_hex(16)}"),
            "TWILIO_API_KEY_SECRET": kept("twilio_api_key_secret", lambda: secrets.token_hex(16)),
            "TWILIO_TWIML_APP_SID": kept("twilio_twiml_app_sid", lambda: f"AP{secrets.token_hex(16)}"),
        }

    def _sandbox_port(self) -> int:
        """The last run's, if it is free: media and recordings that are not fetched yet have URLs with it."""
        kept = self._folder.sandbox_port
        port = free_port(int(kept.read_text()) if kept.exists() else 0)
        write_private(kept, str(port))
        return port

    def _make_bandwidth_account(self) -> None:
        """The sandbox plays Bandwidth too, unless there is an account at Bandwidth itself."""
        if self._sandbox is None or self._settings.bandwidth_account_id is not None:
            return
        self._made |= {
            "BANDWIDTH_ACCOUNT_ID": self._folder.kept("bandwidth_account_id", lambda: str(secrets.randbelow(10**7))),
            "BANDWIDTH_CLIENT_ID": "sandbox",
            "BANDWIDTH_CLIENT_SECRET": self._folder.kept("bandwidth_client_secret", lambda: secrets.token_hex(16)),
            "BANDWIDTH_CALLBACK_USERNAME": "sandbox",
            "BANDWIDTH_CALLBACK_PASSWORD": self._folder.kept(
                "bandwidth_callback_password", lambda: secrets.token_hex(16)
            ),
            "BANDWIDTH_API_BASE_URL": f"http://{self._sandbox}",
            "BANDWIDTH_TOKEN_URL": f"http://{self._sandbox}{BANDWIDTH_TOKEN_PATH}",
        }

    def _make_zoom_account(self) -> None:
        """The sandbox plays Zoom too, unless there is an account at Zoom itself."""
        if self._sandbox is None or self._settings.zoom_sdk_key is not None:
            return
        names = ("ZOOM_SDK_KEY", "ZOOM_SDK_SECRET", "ZOOM_API_KEY", "ZOOM_API_SECRET", "ZOOM_WEBHOOK_SECRET_TOKEN")
        # As long as HS256 wants its keys.
        self._made |= {name: self._folder.kept(name.lower(), lambda: secrets.token_hex(16)) for name in names}
        self._made["ZOOM_API_BASE_URL"] = f"http://{self._sandbox}"

    def _sandbox_process(self) -> list[Process]:
        if self._sandbox is None:
            return []
        public_base_url = self._made["PUBLIC_BASE_URL"].rstrip("/")
        options = [
            f"--listen={self._sandbox}",
            f"--data-dir={self._folder.path / 'sandbox'}",
            f"--base-url={self._made['TWILIO_API_BASE_URL']}",
            f"--inbound-url={public_base_url}/api/v1/twilio_requests/inbound",
            f"--voice-url={public_base_url}/api/v1/twilio_calls/incoming{RETRIES}",
            f"--voice-status-url={public_base_url}/api/v1/twilio_calls/participant_status_changes{RETRIES}",
            f"--voice-app-url={public_base_url}/api/v1/sdk_calls/response{RETRIES}",
        ]
        if "BANDWIDTH_ACCOUNT_ID" in self._made:
            options.append(f"--bandwidth-callback-url={public_base_url}/webhooks/bandwidth/messages_updates")
        if "ZOOM_SDK_KEY" in self._made:
            options.append(f"--zoom-webhook-url={public_base_url}/api/v1/zoom_requests/webhook")
        return [self._process("sandbox", "server", "sandbox", "serve", *options)]

    def _complete(self, database_url: str) -> None:
        """What the processes need and the environment does not say; a bad setting shows here, not in six logs."""
        keys = self._settings.encryption_keys
        self._made |= {
            "DATABASE_URL": database_url,
            "PUBLIC_BASE_URL": self._settings.public_base_url or self._base_url,
            "ENCRYPTION_KEYS": keys.get_secret_value() if keys else self._folder.kept("encryption_key", _new_key),
            "STORAGE_URL": self._settings.storage_url or (self._folder.path.absolute() / "files").as_uri(),
            "WEBHOOK_ALLOWED_NETWORKS": self._settings.webhook_allowed_networks,
        }
        Settings.model_validate({name.lower(): value for name, value in self._made.items()})

    def _prepare(self, database_url: str) -> None:
        """Migrate, make the administrator's key and the sandbox's sending numbers, where that is not done yet."""
        if self._postgres is not None:
            self._supervisor.wait_for("PostgreSQL", self._postgres.ready, seconds=READY_SECONDS)
        database = "local" if self._postgres else hashlib.sha256(database_url.encode()).hexdigest()
        revision = current_revision(database_url)
        prepared = self._folder.path / "prepared_database"
        token = self._folder.admin_token
        if revision is None or not prepared.exists() or prepared.read_text() != database:
            # Another database knows nothing of this key.
            token.unlink(missing_ok=True)
        if token.exists() and revision == newest_revision():
            return
        played = [name for name in ("twilio", "bandwidth") if f"{name.upper()}_API_BASE_URL" in self._made]
        prepare = self._process("prepare", "server.stack.prepare", str(token), *played)
        prepare.start()
        self._supervisor.wait_for("The schema", lambda: prepare.exit_code() is not None, seconds=READY_SECONDS)
        if prepare.exit_code() != 0:
            raise StackError(f"Preparing the database failed: {prepare.last_log_line()} (log: {prepare.log})")
        write_private(prepared, database)

    def _process(self, name: str, module: str, *arguments: str) -> Process:
        return Process(
            name=name,
            command=[sys.executable, "-m", module, *arguments],
            log=self._folder.logs / f"{name}.log",
            folder=ROOT,
            # Unbuffered, since a log that lags behind explains nothing; with bytecode, since compiling at each start
            # takes longer than everything else together.
            environment={"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "", **self._made},
        )

    def _announce(self) -> None:
        shown = self._settings.common_services_data_dir
        click.echo(f"ready {self._base_url}")
        click.echo(f"  admin token  {shown / self._folder.admin_token.name}")
        if self._sandbox is not None:
            click.echo(f"  sandbox      http://{self._sandbox} (the carrier: no message leaves this machine)")
        if self._postgres is not None:
            url = f"postgresql://{ROLE}@{HOST}:{self._postgres.port}/{ROLE}"
            click.echo(f"  database     PGPASSFILE={shown / self._postgres.password_file.name} psql {url}")
        settings = shlex.quote(str(shown / self._folder.env.name))
        click.echo(f"  settings     {settings} (for other commands: set -a; . {settings}; set +a)")
        click.echo(f"  logs         {shown / self._folder.logs.name}/*.log")


def _check_port_is_free(port: int) -> None:
    try:
        check_is_free(port)
    except OSError as error:
        raise StackError(f"Cannot listen on {HOST}:{port} (COMMON_SERVICES_PORT): {error.strerror}.") from error


def _new_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
