"""What the answer to an inbound message asks for: TwiML's <Message>, and nothing else of TwiML."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

MAX_BYTES = 65_536

_XML = ("text/xml", "application/xml", "text/html")


@dataclass(frozen=True)
class Reply:
    """A message that goes back to the phone."""

    body: str
    media_urls: tuple[str, ...]


class TwimlInvalid(Exception):
    """An answer that means nothing, with Twilio's code for it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def replies(content_type: str, body: bytes) -> list[Reply]:
    """The messages asked for, in order: none by an empty answer, one by plain text. Raises TwimlInvalid."""
    if len(body) > MAX_BYTES:
        raise TwimlInvalid(11750, f"the answer is longer than {MAX_BYTES} bytes")
    if not body.strip():
        return []
    if content_type == "text/plain":
        return [Reply(body.decode(errors="replace").strip(), ())]
    if content_type not in _XML:
        raise TwimlInvalid(12300, f"the answer is {content_type}, not TwiML")
    try:
        response = ElementTree.fromstring(body)  # noqa: S314 # our own server's, and short
    except ElementTree.ParseError as error:
        raise TwimlInvalid(12100, f"the answer is not XML: {error}") from error
    if response.tag != "Response":
        raise TwimlInvalid(12200, f"the answer is <{response.tag}>, not <Response>")
    return [_reply(verb) for verb in response]


def _reply(verb: ElementTree.Element) -> Reply:
    if verb.tag not in ("Message", "Sms") or verb.attrib:
        raise TwimlInvalid(12200, f"the sandbox knows <Message> without attributes, not {_tag(verb)}")
    unknown = [noun for noun in verb if noun.tag not in ("Body", "Media")]
    if unknown:
        raise TwimlInvalid(12200, f"the sandbox knows <Body> and <Media> in <Message>, not {_tag(unknown[0])}")
    urls = tuple((noun.text or "").strip() for noun in verb if noun.tag == "Media")
    return Reply("".join(_texts(verb)).strip(), urls)


def _tag(element: ElementTree.Element) -> str:
    return f"<{' '.join([element.tag, *element.attrib])}>"


def _texts(message: ElementTree.Element) -> Iterator[str]:
    """The text in <Message> itself and in its <Body>, not the address in its <Media>."""
    yield message.text or ""
    for noun in message:
        if noun.tag == "Body":
            yield noun.text or ""
        yield noun.tail or ""
