"""Proves and reads Twilio's callbacks of messages to our numbers."""

from collections.abc import Mapping

import structlog

from server.providers.ports import CallbackMalformed, InboundMedia, InboundMessage, Keyword, SignedRequest
from server.providers.twilio.signature import Verifier

log = structlog.get_logger(__name__)

_NEEDED = ("MessageSid", "From", "To")

# Of media that Twilio does not name a type of; what it is shows when it is fetched.
_UNKNOWN_TYPE = "application/octet-stream"


class TwilioInboundMessageReader:
    """ports.InboundMessageReader for callbacks signed with one account's auth token."""

    def __init__(self, *, auth_token: str) -> None:
        self._verifier = Verifier(auth_token=auth_token)

    def read(self, request: SignedRequest) -> InboundMessage:
        """Verify on the raw body, then parse. What no row can hold of a text is replaced: no message is lost for it."""
        fields = self._verifier.storable_fields(request)
        missing = [name for name in _NEEDED if not fields.get(name)]
        if missing:
            raise CallbackMalformed(f"missing: {', '.join(missing)}")
        return InboundMessage(
            message_sid=fields["MessageSid"],
            sender_number=fields["From"],
            receiver_number=fields["To"],
            message_body=fields.get("Body", ""),
            media=_media(fields),
            keyword=_keyword(fields.get("OptOutType", "")),
        )


def _media(fields: Mapping[str, str]) -> tuple[InboundMedia, ...]:
    media: list[InboundMedia] = []
    while url := fields.get(f"MediaUrl{len(media)}"):
        content_type = fields.get(f"MediaContentType{len(media)}") or _UNKNOWN_TYPE
        media.append(InboundMedia(url=url, content_type=content_type))
    if (stated := fields.get("NumMedia", "0")) != str(len(media)):
        log.warning("twilio.media_not_as_stated", message_sid=fields["MessageSid"], stated=stated, found=len(media))
    return tuple(media)


def _keyword(opt_out_type: str) -> Keyword | None:
    """What Advanced Opt-Out took the text for and has answered; None where it took it for no keyword, or is off."""
    try:
        return Keyword(opt_out_type.upper())
    except ValueError:
        return None
