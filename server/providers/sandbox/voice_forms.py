"""Reading the forms and the filters of the voice resources, and refusing them with Twilio's codes."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from server.providers.sandbox.answers import Refusal
from server.providers.sandbox.validity import is_http_url
from server.providers.sandbox.voice_records import StatusCallback, Webhook

# Not one of Twilio's: a parameter that it would carry out and the sandbox cannot.
CANNOT = 90002

_INVALID_PARAMETER = 20001
_INVALID_STATUS_CALLBACK = 21609
_INVALID_METHOD = 21209
# Twilio takes the request all the same, warns, and never calls back; that would be hard to find out here.
_INVALID_EVENTS = 21626


class Form:
    """The parameters of one request: those that were read are known, and `finish` refuses the others."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self._known: set[str] = set()

    def text(self, name: str) -> str | None:
        """The value, None where it is not given."""
        self._known.add(name)
        return self._values[name][-1] if name in self._values else None

    def ignore(self, *names: str) -> None:
        """Take parameters that change nothing here, such as which music is heard."""
        self._known |= {*names}

    def flag(self, name: str) -> bool | None:
        """A truth value."""
        value = self.text(name)
        if value is not None and value.lower() not in ("true", "false"):
            raise Refusal(400, _INVALID_PARAMETER, f"{name} must be true or false")
        return None if value is None else value.lower() == "true"

    def word(self, name: str, *words: str) -> str | None:
        """One of these, whatever their case."""
        value = self.text(name)
        if value is None:
            return None
        found = [word for word in words if word.lower() == value.lower()]
        if not found:
            raise Refusal(400, _INVALID_PARAMETER, f"{name} must be one of {', '.join(words)}")
        return found[0]

    def whole(self, name: str, least: int, most: int, *, code: int = _INVALID_PARAMETER) -> int | None:
        """A whole number between these, both included."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and least <= int(value) <= most):
            raise Refusal(400, code, f"{name} must be a whole number, {least} to {most}")
        return int(value)

    def webhook(self, url: str, method: str, *, code: int = _INVALID_STATUS_CALLBACK) -> Webhook | None:
        """A URL and how it is asked; None where it is not given."""
        address, verb = self.text(url), self.text(method) or "POST"
        if verb.upper() not in ("GET", "POST"):
            raise Refusal(400, _INVALID_METHOD, f"{method} must be GET or POST")
        if not address:
            return None
        if not is_http_url(address):
            raise Refusal(400, code, f"{url} is not a valid URL: {address}")
        return Webhook(address, verb.upper())

    def callback(self, prefix: str, *, events: tuple[str, ...], default: tuple[str, ...]) -> StatusCallback | None:
        """A URL, its method and which events are told there, each a parameter of its own or with spaces between."""
        name = f"{prefix}Event"
        self._known.add(name)
        told = [event for written in self._values.get(name, []) for event in written.split()]
        unknown = [event for event in told if event not in events]
        if unknown:
            raise Refusal(400, _INVALID_EVENTS, f"{name} must be of {', '.join(events)}, not {', '.join(unknown)}")
        webhook = self.webhook(prefix, f"{prefix}Method")
        return None if webhook is None else StatusCallback(webhook.url, webhook.method, frozenset(told or default))

    def finish(self) -> None:
        """Raises Refusal where there is a parameter that nobody read."""
        unknown = sorted(self._values.keys() - self._known)
        if unknown:
            raise Refusal(400, CANNOT, f"the sandbox does not know {', '.join(unknown)} here")


PROGRESS: Final = ("initiated", "ringing", "answered", "completed")
RECORDING_EVENTS: Final = ("in-progress", "completed", "absent")
CONFERENCE_EVENTS: Final = ("start", "end", "join", "leave", "mute", "hold", "modify", "speaker", "announcement")


async def form_of(request: web.Request) -> Form:
    """The parameters of a request."""
    return Form((name, str(value)) for name, value in (await request.post()).items())


def time_filter(request: web.Request, name: str) -> Callable[[float | None], bool]:
    """`name` is one UTC day, `name<` up to, `name>` from a day or a time; what has no time fits none of them."""
    bounds: list[tuple[float, float]] = []
    for parameter in (name, f"{name}<", f"{name}>"):
        if parameter not in request.query:
            continue
        try:
            at = datetime.fromisoformat(request.query[parameter])
        except ValueError as error:
            raise Refusal(400, _INVALID_PARAMETER, f"{parameter} is not an ISO 8601 date or time") from error
        start = at.replace(tzinfo=at.tzinfo or UTC)
        if parameter == name:
            bounds.append((start.timestamp(), (start + timedelta(days=1)).timestamp()))
        else:
            bounds.append((0, start.timestamp()) if parameter.endswith("<") else (start.timestamp(), float("inf")))
    return lambda time: not bounds or (time is not None and all(low <= time <= high for low, high in bounds))


def fits(request: web.Request, **values: str | None) -> bool:
    """Whether a record is what the query asks for, by parameters that have one value."""
    return all(request.query.get(name) in (None, value) for name, value in values.items())
