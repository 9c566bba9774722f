"""Reads the answer to a call: a document of voice TwiML becomes the verbs of `voice_verbs.py`, every attribute checked.

What the sandbox cannot do is refused like what means nothing. Twilio would warn and go on, which would hide it here.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints
from xml.etree import ElementTree

from server.providers.sandbox.twiml import MAX_BYTES, TwimlInvalid
from server.providers.sandbox.voice_verbs import (
    MAX_RINGING,
    Client,
    Conference,
    Dial,
    Gather,
    Hangup,
    Noun,
    Number,
    Parameter,
    Pause,
    Play,
    Prompt,
    Record,
    Redirect,
    Reject,
    Say,
    Verb,
)

_XML = ("text/xml", "application/xml", "text/html")

# The schema of TwiML does not allow it.
_SCHEMA = 12200

T = TypeVar("T")


def verbs_of(content_type: str, body: bytes) -> list[Verb]:
    """The verbs of an answer in order; an empty answer, as an empty <Response>, has none. Raises TwimlInvalid.

    An answer of plain text is spoken, as at Twilio.
    """
    if len(body) > MAX_BYTES:
        raise TwimlInvalid(11750, f"the answer is longer than {MAX_BYTES} bytes")
    if not body.strip():
        return []
    if content_type == "text/plain":
        return [Say(body.decode(errors="replace").strip())]
    if content_type not in _XML:
        raise TwimlInvalid(12300, f"the answer is {content_type}, not TwiML")
    return verbs_in(body)


def verbs_in(document: str | bytes) -> list[Verb]:
    """The verbs of a document in order. Raises TwimlInvalid."""
    try:
        response = ElementTree.fromstring(document)  # noqa: S314 # our own server's, and short
    except ElementTree.ParseError as error:
        raise TwimlInvalid(12100, f"the answer is not XML: {error}") from error
    if response.tag != "Response" or response.attrib:
        raise _wrong(f"the answer is {_tag(response)}, not <Response>")
    _refuse_text(response)
    return [_verb(element) for element in response]


def _verb(element: ElementTree.Element) -> Verb:
    read = _VERBS.get(element.tag)
    if read is None:
        raise _wrong(f"the sandbox knows {_names(_VERBS)}, not {_tag(element)}")
    return read(element)


def _gather(element: ElementTree.Element) -> Gather:
    _refuse_text(element)
    gather = _read(Gather, element, prompts=tuple(_of(element, each, _PROMPTS) for each in element))
    if gather.speech_timeout not in (None, "auto") and not str(gather.speech_timeout).isdecimal():
        raise _wrong(f"speechTimeout of <Gather> must be auto or a whole number, not {gather.speech_timeout}")
    return gather


def _dial(element: ElementTree.Element) -> Dial:
    if len(element):
        _refuse_text(element)
    number = (element.text or "").strip()
    nouns = tuple(_of(element, each, _NOUNS) for each in element)
    if number and not nouns:
        nouns = (Number(number),)
    conferences = sum(isinstance(noun, Conference) for noun in nouns)
    if len(nouns) > MAX_RINGING or (conferences and len(nouns) > 1):
        raise _wrong(f"<Dial> has at most {MAX_RINGING} of <Number> and <Client>, or one <Conference>")
    if not nouns:
        raise _wrong("<Dial> has nobody to dial")
    # What Twilio still takes from the days when there was nothing between all and nothing.
    alias = {"true": "record-from-answer", "false": "do-not-record"}
    if (record := element.get("record")) in alias:
        element.set("record", alias[record])
    return _read(Dial, element, nouns=nouns)


def _number(element: ElementTree.Element) -> Number:
    return _read(Number, element, phone_number=_text(element))


def _client(element: ElementTree.Element) -> Client:
    identities = [_text(each) for each in element if each.tag == "Identity"]
    parameters = tuple(_read(Parameter, each) for each in element if each.tag == "Parameter")
    if others := [each for each in element if each.tag not in ("Identity", "Parameter")]:
        raise _wrong(f"<Client> has <Identity> and <Parameter>, not {_tag(others[0])}")
    if len(identities) > 1 or (identities and (element.text or "").strip()):
        raise _wrong("<Client> has one identity")
    if any(not parameter.name for parameter in parameters):
        raise _wrong("<Parameter> of <Client> needs a name")
    identity = identities[0] if identities else (element.text or "").strip()
    if not identity:
        raise _wrong("<Client> needs an identity")
    return _read(Client, element, identity=identity, parameters=parameters)


def _conference(element: ElementTree.Element) -> Conference:
    return _read(Conference, element, name=_text(element))


def _say(element: ElementTree.Element) -> Say:
    # Its tags are those of SSML: how it is said, not what.
    return _read(Say, element, text=" ".join("".join(element.itertext()).split()))


def _play(element: ElementTree.Element) -> Play:
    play = _read(Play, element, url=_text(element, required=False))
    if not play.url and play.digits is None:
        raise _wrong("<Play> needs a URL or digits")
    return play


def _plain(kind: type[T]) -> Callable[[ElementTree.Element], T]:
    """A verb that has nothing between its tags."""

    def read(element: ElementTree.Element) -> T:
        _refuse_text(element)
        if len(element):
            raise _wrong(f"<{element.tag}> has nothing in it, not {_tag(element[0])}")
        return _read(kind, element)

    return read


def _with_parameters(kind: type[T]) -> Callable[[ElementTree.Element], T]:
    def read(element: ElementTree.Element) -> T:
        _refuse_text(element)
        parameters = tuple(_of(element, each, {"Parameter": _plain(Parameter)}) for each in element)
        return _read(kind, element, parameters=parameters)

    return read


def _redirect(element: ElementTree.Element) -> Redirect:
    return _read(Redirect, element, url=_text(element, required=False))


_PROMPTS: dict[str, Callable[[ElementTree.Element], Prompt]] = {"Say": _say, "Play": _play, "Pause": _plain(Pause)}
_NOUNS: dict[str, Callable[[ElementTree.Element], Noun]] = {
    "Number": _number,
    "Client": _client,
    "Conference": _conference,
}
_VERBS: dict[str, Callable[[ElementTree.Element], Verb]] = {
    **_PROMPTS,
    "Gather": _gather,
    "Dial": _dial,
    "Record": _plain(Record),
    "Redirect": _redirect,
    "Hangup": _with_parameters(Hangup),
    "Reject": _with_parameters(Reject),
}


def _of(
    parent: ElementTree.Element,
    element: ElementTree.Element,
    known: dict[str, Callable[[ElementTree.Element], T]],
) -> T:
    if element.tag not in known:
        raise _wrong(f"the sandbox knows {_names(known)} in <{parent.tag}>, not {_tag(element)}")
    return known[element.tag](element)


def _read(kind: type[T], element: ElementTree.Element, **inner: Any) -> T:
    """The attributes of an element, checked, beside what is between its tags."""
    types = get_type_hints(kind)
    known = {_camel(each.name): each for each in fields(kind) if not each.metadata.get("inner")}  # type: ignore[arg-type] # kinds are dataclasses
    values = dict(inner)
    for name, written in element.attrib.items():
        if name not in known:
            raise _wrong(f"the sandbox does not know {name} of <{element.tag}>")
        each = known[name]
        wanted, value = _value(types[each.name], each.metadata, written)
        if wanted:
            raise _wrong(f"{name} of <{element.tag}> must be {wanted}, not {written}")
        values[each.name] = value
    return kind(**values)


def _value(wanted: Any, metadata: Any, written: str) -> tuple[str, Any]:
    """What was wanted where the value is not that, and the value."""
    if wanted is bool:
        return ("" if written in ("true", "false") else "true or false"), written == "true"
    if "between" in metadata:
        least, most = metadata["between"]
        fits = written.isdecimal() and least <= int(written) <= most
        return ("", int(written)) if fits else (f"a whole number, {least} to {most}", None)
    if "keys" in metadata:
        keys = metadata["keys"]
        return ("" if set(written) <= keys else f"some of {''.join(sorted(keys))}"), written
    if "among" in metadata:
        among = metadata["among"]
        several = tuple in (getattr(wanted, "__origin__", None), *get_args(wanted))
        words = tuple(written.split()) if several else (written,)
        if set(words) <= set(among):
            return "", words if several else written
        return f"{'some' if several else 'one'} of {', '.join(among)}", None
    return "", written


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def _text(element: ElementTree.Element, *, required: bool = True) -> str:
    """What is between its tags, where no other tag may be."""
    if len(element):
        raise _wrong(f"<{element.tag}> has text in it, not {_tag(element[0])}")
    text = (element.text or "").strip()
    if required and not text:
        raise _wrong(f"<{element.tag}> is empty")
    return text


def _refuse_text(element: ElementTree.Element) -> None:
    if any((text or "").strip() for text in (element.text, *(each.tail for each in element))):
        raise _wrong(f"<{element.tag}> has text in it")


def _wrong(message: str) -> TwimlInvalid:
    return TwimlInvalid(_SCHEMA, message)


def _names(known: dict[str, Callable[[ElementTree.Element], T]]) -> str:
    return ", ".join(f"<{name}>" for name in known)


def _tag(element: ElementTree.Element) -> str:
    return f"<{' '.join([element.tag, *element.attrib])}>"
