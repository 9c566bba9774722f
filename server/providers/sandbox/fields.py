"""Reading what the control API is told, and refusing it with one entry per bad field."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web


class ControlRefusal(Exception):
    """A control request that cannot be carried out, with one entry per bad field."""

    def __init__(self, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []

    @classmethod
    def of(cls, field: str, description: str) -> "ControlRefusal":
        """One bad field."""
        return cls(f"{field} {description}", [{"field": field, "description": description}])


class Fields:
    """The fields of a JSON body: what is wrong with them is collected, so that one answer names it all."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._errors: list[dict[str, str]] = []

    def take(self, name: str, fits: Callable[[Any], bool], wanted: str) -> Any:
        """The value, None when it is absent or null."""
        value = self._values.pop(name, None)
        if value is not None and not fits(value):
            self.refuse(name, wanted)
            return None
        return value

    def need(self, name: str, fits: Callable[[Any], bool], wanted: str) -> Any:
        """The value; when it is absent or null, that is wrong too."""
        if self._values.get(name) is None:
            self._values.pop(name, None)
            self.refuse(name, wanted)
            return None
        return self.take(name, fits, wanted)

    def refuse(self, name: str, wanted: str) -> None:
        """Note that a field is not as wanted."""
        self._errors.append({"field": name, "description": f"must be {wanted}"})

    def finish(self) -> None:
        """Raises 400 with everything that is wrong, unknown fields among it."""
        self._errors.extend({"field": name, "description": "is not known here"} for name in self._values)
        if self._errors:
            raise ControlRefusal("; ".join(f"{e['field']} {e['description']}" for e in self._errors), self._errors)


def error_answer(status: int, message: str, errors: list[dict[str, str]]) -> web.Response:
    """The control API's error JSON."""
    return web.json_response({"message": message, "errors": errors}, status=status)


async def fields_of(request: web.Request) -> Fields:
    """The fields of a request. Raises ControlRefusal."""
    try:
        body = await request.json()
    except ValueError as error:
        raise ControlRefusal("the body is not JSON") from error
    if not isinstance(body, dict):
        raise ControlRefusal("the body must be a JSON object")
    return Fields(body)


def one_of(words: list[Any] | tuple[str, ...]) -> Callable[[Any], bool]:
    """Fits only these."""
    return lambda value: value in words


def whole(least: int, most: int) -> Callable[[Any], bool]:
    """Fits whole numbers between these, both included."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def number_of(written: str) -> str:
    """A plus sign that nobody encoded arrives as a space."""
    return "+" + written.strip().removeprefix("+")


def spellings_of(written: str) -> set[str]:
    """A sender that may be a number, a short code or a name."""
    return {written.strip(), number_of(written)}
