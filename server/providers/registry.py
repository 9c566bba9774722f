"""Provider name to factory: what a Message row's provider stands for.

The factories import when they are called: api processes only read callbacks and should not load an SDK for that.
"""

from collections.abc import Callable, Mapping

from server.config import Settings
from server.providers.ports import MessageCallbackReader, MessageSender


def _twilio_message_sender(settings: Settings) -> MessageSender:
    from server.providers.twilio.adapter import TwilioMessageSender

    return TwilioMessageSender(
        account_sid=settings.twilio_account_sid,
        auth_token=settings.twilio_auth_token.get_secret_value(),
        public_base_url=settings.public_base_url,
        api_base_url=settings.twilio_api_base_url,
    )


def _twilio_message_callback_reader(settings: Settings) -> MessageCallbackReader:
    from server.providers.twilio.callback import TwilioMessageCallbackReader

    return TwilioMessageCallbackReader(auth_token=settings.twilio_auth_token.get_secret_value())


# Each factory is called inside a running event loop: a sender opens a connection pool.
MESSAGE_SENDERS: Mapping[str, Callable[[Settings], MessageSender]] = {"twilio": _twilio_message_sender}

MESSAGE_CALLBACK_READERS: Mapping[str, Callable[[Settings], MessageCallbackReader]] = {
    "twilio": _twilio_message_callback_reader
}
