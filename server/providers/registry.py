"""Provider name to adapters: what a Message row's provider stands for.

Adapters are imported when they are made: api processes only read callbacks and should not load an SDK for that. They
are made inside a running event loop, where they open connection pools. Bandwidth's and Zoom's are there only where they
are configured, and so are Twilio's tokens.
"""

from typing import TYPE_CHECKING

from server.config import Settings
from server.providers.ports import (
    InboundMessageReader,
    LineTypeLookup,
    MediaFetcher,
    MessageCallbackReader,
    MessageEventsReader,
    MessageSender,
    NumberDirectory,
)
from server.providers.transcription_ports import Transcriber, TranscriptReportReader
from server.providers.twilio.account import TwilioAccount
from server.providers.video_ports import RecordingFetcher, VideoEventReader, VideoSessions, VideoTokens
from server.providers.voice_ports import (
    CallRecordingFetcher,
    CallScripts,
    VoiceCallbackReader,
    VoiceCalls,
    VoiceTokens,
)

if TYPE_CHECKING:
    from server.providers.bandwidth.oauth import ClientCredentials
    from server.providers.transcription.callback_url import CallbackUrls


def message_providers(settings: Settings) -> frozenset[str]:
    """The providers that messages can be sent through."""
    return frozenset({"twilio"} | ({"bandwidth"} if settings.bandwidth_account_id is not None else set()))


def message_senders(settings: Settings) -> dict[str, MessageSender]:
    """A sender of each provider."""
    from server.providers.twilio.adapter import TwilioMessageSender

    senders: dict[str, MessageSender] = {
        "twilio": TwilioMessageSender(_twilio_account(settings), public_base_url=settings.public_base_url)
    }
    if settings.bandwidth_account_id is not None:
        from server.providers.bandwidth.adapter import BandwidthMessageSender

        senders["bandwidth"] = BandwidthMessageSender(
            account_id=settings.bandwidth_account_id,
            credentials=_bandwidth_credentials(settings),
            api_base_url=settings.bandwidth_api_base_url,
        )
    return senders


def _twilio_account(settings: Settings) -> TwilioAccount:
    return TwilioAccount(
        sid=settings.twilio_account_sid,
        auth_token=settings.twilio_auth_token.get_secret_value(),
        api_base_url=settings.twilio_api_base_url,
    )


def _bandwidth_credentials(settings: Settings) -> "ClientCredentials":
    from server.providers.bandwidth.oauth import ClientCredentials

    assert settings.bandwidth_client_id is not None, "set together with the account"
    assert settings.bandwidth_client_secret is not None, "set together with the account"
    return ClientCredentials(
        client_id=settings.bandwidth_client_id,
        client_secret=settings.bandwidth_client_secret.get_secret_value(),
        token_url=settings.bandwidth_token_url,
    )


def message_callback_reader(settings: Settings) -> MessageCallbackReader:
    """Twilio's status callbacks."""
    from server.providers.twilio.callback import TwilioMessageCallbackReader

    return TwilioMessageCallbackReader(auth_token=settings.twilio_auth_token.get_secret_value())


def inbound_message_reader(settings: Settings) -> InboundMessageReader:
    """Twilio's callbacks of messages to our numbers."""
    from server.providers.twilio.inbound import TwilioInboundMessageReader

    return TwilioInboundMessageReader(auth_token=settings.twilio_auth_token.get_secret_value())


def message_events_reader(settings: Settings) -> MessageEventsReader | None:
    """Bandwidth's callbacks of both kinds."""
    if settings.bandwidth_callback_username is None:
        return None
    from server.providers.bandwidth.callback import BandwidthEventsReader

    assert settings.bandwidth_callback_password is not None, "set together with the name"
    return BandwidthEventsReader(
        username=settings.bandwidth_callback_username,
        password=settings.bandwidth_callback_password.get_secret_value(),
    )


def media_fetchers(settings: Settings) -> dict[str, MediaFetcher]:
    """A fetcher of each provider's media."""
    from server.providers.twilio.media import TwilioMediaFetcher

    fetchers: dict[str, MediaFetcher] = {"twilio": TwilioMediaFetcher(_twilio_account(settings))}
    if settings.bandwidth_account_id is not None:
        from server.providers.bandwidth.media import BandwidthMediaFetcher

        fetchers["bandwidth"] = BandwidthMediaFetcher(
            credentials=_bandwidth_credentials(settings), api_base_url=settings.bandwidth_api_base_url
        )
    return fetchers


def line_type_lookup(settings: Settings) -> LineTypeLookup:
    """Twilio's Lookups, whoever carries the messages."""
    from server.providers.twilio.lookups import TwilioLineTypeLookup

    return TwilioLineTypeLookup(_twilio_account(settings))


def number_directory(settings: Settings) -> NumberDirectory:
    """The numbers of the Twilio account."""
    from server.providers.twilio.numbers import TwilioNumberDirectory

    return TwilioNumberDirectory(_twilio_account(settings))


def voice_calls(settings: Settings) -> VoiceCalls:
    """Calls through the Twilio account."""
    from server.providers.twilio.voice import TwilioVoiceCalls

    return TwilioVoiceCalls(_twilio_account(settings), public_base_url=settings.public_base_url)


def call_scripts(settings: Settings) -> CallScripts:
    """TwiML."""
    from server.providers.twilio.twiml import TwilioCallScripts

    return TwilioCallScripts(public_base_url=settings.public_base_url)


def voice_callback_reader(settings: Settings) -> VoiceCallbackReader:
    """Twilio's callbacks about calls."""
    from server.providers.twilio.voice_callbacks import TwilioVoiceCallbackReader

    return TwilioVoiceCallbackReader(auth_token=settings.twilio_auth_token.get_secret_value())


def voice_tokens(settings: Settings) -> VoiceTokens | None:
    """Tokens that browsers call with; None where there is no API key to sign them with."""
    if settings.twilio_api_key_sid is None:
        return None
    from server.providers.twilio.voice_tokens import TwilioVoiceTokens

    assert settings.twilio_api_key_secret is not None, "set together with the key"
    assert settings.twilio_twiml_app_sid is not None, "set together with the key"
    return TwilioVoiceTokens(
        account_sid=settings.twilio_account_sid,
        api_key_sid=settings.twilio_api_key_sid,
        api_key_secret=settings.twilio_api_key_secret.get_secret_value(),
        twiml_app_sid=settings.twilio_twiml_app_sid,
    )


def call_recording_fetcher(settings: Settings) -> CallRecordingFetcher:
    """Recordings of the Twilio account's calls."""
    from server.providers.twilio.recordings import TwilioCallRecordingFetcher

    return TwilioCallRecordingFetcher(_twilio_account(settings))


def video_tokens(settings: Settings) -> VideoTokens | None:
    """Tokens of the Video SDK account."""
    if settings.zoom_sdk_key is None:
        return None
    from server.providers.zoom.tokens import ZoomVideoTokens

    assert settings.zoom_sdk_secret is not None, "set together with the key"
    return ZoomVideoTokens(sdk_key=settings.zoom_sdk_key, sdk_secret=settings.zoom_sdk_secret.get_secret_value())


def video_sessions(settings: Settings) -> VideoSessions | None:
    """Sessions of the Video SDK account."""
    if settings.zoom_api_key is None:
        return None
    from server.providers.zoom.client import ZoomVideoSessions

    assert settings.zoom_api_secret is not None, "set together with the key"
    return ZoomVideoSessions(
        api_key=settings.zoom_api_key,
        api_secret=settings.zoom_api_secret.get_secret_value(),
        api_base_url=settings.zoom_api_base_url,
    )


def video_event_reader(settings: Settings) -> VideoEventReader | None:
    """Zoom's webhooks."""
    if settings.zoom_webhook_secret_token is None:
        return None
    from server.providers.zoom.webhook import ZoomVideoEventReader

    return ZoomVideoEventReader(secret_token=settings.zoom_webhook_secret_token.get_secret_value())


def recording_fetcher(settings: Settings) -> RecordingFetcher | None:
    """Recordings of the Video SDK account."""
    if settings.zoom_sdk_key is None:
        return None
    from server.providers.zoom.recordings import ZoomRecordingFetcher

    return ZoomRecordingFetcher(
        api_base_url=settings.zoom_api_base_url, allowed_networks=settings.webhook_allowed_networks
    )


def transcriber(settings: Settings) -> Transcriber:
    """VoiceBase where there is an account, else one that runs on this machine."""
    if settings.voicebase_token is None:
        from server.providers.transcription.offline import OfflineTranscriber

        return OfflineTranscriber()
    from server.providers.transcription.voicebase import VoiceBaseTranscriber

    return VoiceBaseTranscriber(
        token=settings.voicebase_token.get_secret_value(),
        urls=_transcript_callback_urls(settings),
        api_base_url=settings.voicebase_api_base_url,
    )


def transcript_report_reader(settings: Settings) -> TranscriptReportReader | None:
    """VoiceBase's callbacks."""
    if settings.voicebase_token is None:
        return None
    from server.providers.transcription.voicebase_callback import VoiceBaseReportReader

    return VoiceBaseReportReader(_transcript_callback_urls(settings))


def _transcript_callback_urls(settings: Settings) -> "CallbackUrls":
    from server.providers.transcription.callback_url import CallbackUrls

    return CallbackUrls([key.get_secret_value() for key in settings.encryption_keys])
