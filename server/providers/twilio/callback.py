"""Proves and reads Twilio's callbacks about our messages."""

from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from server.providers.ports import CallbackMalformed, MessageCallback, SignedRequest
from server.providers.twilio import statuses
from server.providers.twilio.signature import Verifier


class TwilioMessageCallbackReader:
    """ports.MessageCallbackReader for callbacks signed with one account's auth token."""

    def __init__(self, *, auth_token: str) -> None:
        self._verifier = Verifier(auth_token=auth_token)

    def read(self, request: SignedRequest) -> MessageCallback:
        """Verify on the raw body, then parse."""
        fields = self._verifier.fields(request)
        message_sid = fields.get("MessageSid")
        provider_status = fields.get("MessageStatus")
        missing = [name for name in ("MessageSid", "MessageStatus") if not fields.get(name)]
        if not message_sid or not provider_status:
            raise CallbackMalformed(f"missing: {', '.join(missing)}")
        read = (message_sid, provider_status, fields.get("ErrorCode", ""))
        if b"\0" in request.body or any("\0" in value for value in read):
            raise CallbackMalformed("the body, or a field that is read, has the NUL character")
        report = statuses.report(
            message_sid=message_sid, provider_status=provider_status, error_code=fields.get("ErrorCode") or None
        )
        return MessageCallback(report=report, message_uuid=_message_uuid(request.url), body=request.body.decode())


def _message_uuid(url: str) -> UUID | None:
    """The uuid our status callback URL carries; a messaging service's own callback URL has none."""
    value = parse_qs(urlsplit(url).query).get("message_uuid")
    if value is None:
        return None
    try:
        return UUID(value[0])
    except ValueError as error:
        raise CallbackMalformed("message_uuid in the URL is not a UUID") from error
