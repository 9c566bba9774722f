"""`python -m server sandbox serve`: the local carrier itself."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import click

from server.cli.options import HOST_PORT, PATH

# What both sides know of each account: after the vendor's name, the fields of the sandbox's settings of it.
_BROWSERS = ("TWILIO_API_KEY_SID", "TWILIO_API_KEY_SECRET", "TWILIO_TWIML_APP_SID")
_BANDWIDTH = (
    "BANDWIDTH_ACCOUNT_ID",
    "BANDWIDTH_CLIENT_ID",
    "BANDWIDTH_CLIENT_SECRET",
    "BANDWIDTH_CALLBACK_USERNAME",
    "BANDWIDTH_CALLBACK_PASSWORD",
)
_ZOOM = ("ZOOM_SDK_KEY", "ZOOM_SDK_SECRET", "ZOOM_API_KEY", "ZOOM_API_SECRET", "ZOOM_WEBHOOK_SECRET_TOKEN")


def _credentials(command: click.decorators.FC) -> click.decorators.FC:
    for name in (*_BROWSERS, *_BANDWIDTH, *_ZOOM):
        command = click.option(f"--{name.lower().replace('_', '-')}", envvar=name, show_envvar=True)(command)
    return command


@click.command()
@click.option("--listen", required=True, metavar=HOST_PORT)
@click.option("--data-dir", required=True, type=PATH)
@click.option("--account-sid", required=True, envvar="TWILIO_ACCOUNT_SID", show_envvar=True)
@click.option("--auth-token", required=True, envvar="TWILIO_AUTH_TOKEN", show_envvar=True)
@click.option("--inbound-url", help="Where texts to the account's numbers are posted. Default: nowhere.")
@click.option("--voice-url", help="Where calls to the account's numbers ask what to do. Default: nowhere.")
@click.option("--voice-status-url", help="Where the end of those calls, and of browsers', is posted. Default: nowhere.")
@click.option("--base-url", help="Where the account's server reaches the sandbox. Default: as whoever sends a text.")
@click.option(
    "--voice-app-url",
    help="Let browsers call, if there are an API key and a TwiML App, whose voice URL this is. Default: no browsers.",
)
@click.option(
    "--bandwidth-callback-url",
    help="Play Bandwidth too, if there is an account, and call back there. Default: Twilio alone.",
)
@click.option(
    "--zoom-webhook-url", help="Play Zoom too, if there is an account, and post its webhooks there. Default: no Zoom."
)
@click.option("--voicebase-token", help="Play VoiceBase too, for whoever has this token. Default: no VoiceBase.")
@click.option(
    "--second-ms",
    type=click.IntRange(1, 60_000),
    default=1000,
    envvar="SANDBOX_SECOND_MS",
    show_default=True,
    show_envvar=True,
    help="How long a second of ringing, waiting and speaking in calls takes.",
)
@_credentials
def serve(
    listen: str,
    data_dir: Path,
    account_sid: str,
    auth_token: str,
    inbound_url: str | None,
    voice_url: str | None,
    voice_status_url: str | None,
    base_url: str | None,
    voice_app_url: str | None,
    bandwidth_callback_url: str | None,
    zoom_webhook_url: str | None,
    voicebase_token: str | None,
    second_ms: int,
    **credentials: str | None,
) -> None:
    """Serve the vendors' wire protocols for one account of each."""
    from server.providers.sandbox import app
    from server.providers.sandbox.settings import BandwidthAccount, SandboxSettings, VoiceApp, ZoomAccount

    host, _, port = listen.rpartition(":")
    browsers = _account(voice_app_url, "--voice-app-url", _BROWSERS, credentials)
    bandwidth = _account(bandwidth_callback_url, "--bandwidth-callback-url", _BANDWIDTH, credentials)
    zoom = _account(zoom_webhook_url, "--zoom-webhook-url", _ZOOM, credentials)
    settings = SandboxSettings(
        account_sid=account_sid,
        auth_token=auth_token,
        data_dir=data_dir,
        inbound_url=inbound_url,
        voice_url=voice_url,
        voice_status_url=voice_status_url,
        second=timedelta(milliseconds=second_ms),
        base_url=base_url,
        voice_app=VoiceApp(voice_url=voice_app_url, status_callback=voice_status_url, **browsers)
        if voice_app_url and browsers
        else None,
        bandwidth=BandwidthAccount(callback_url=bandwidth_callback_url, **bandwidth)
        if bandwidth_callback_url and bandwidth
        else None,
        zoom=ZoomAccount(webhook_url=zoom_webhook_url, **zoom) if zoom_webhook_url and zoom else None,
        voicebase_token=voicebase_token,
    )
    app.run(settings, host=host, port=int(port))


def _account(url: str | None, option: str, names: Sequence[str], given: Mapping[str, str | None]) -> dict[str, str]:
    """The fields of an account, none where there is none or it is not asked for: it is set as a whole or not at all."""
    account = {name: value for name in names if url and (value := given[name.lower()])}
    missing = [name for name in names if name not in account]
    if account and missing:
        raise click.UsageError(f"{option} needs {', '.join(missing)}")
    return {name.partition("_")[2].lower(): value for name, value in account.items()}
