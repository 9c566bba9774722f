"""Which creates Bandwidth refuses: what is not a message. What cannot be delivered is taken and fails later."""

from typing import Any

from aiohttp import web

from server.providers.sandbox.bandwidth_answers import BandwidthRefusal
from server.providers.sandbox.validity import is_http_url, is_phone_number

MAX_TEXT = 2048
_MAX_TAG = 1024
_MAX_URL = 4096


async def fields_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request. Raises BandwidthRefusal."""
    if request.content_type != "application/json":
        raise BandwidthRefusal(
            415,
            "unsupported-content-type",
            f"Content type '{request.content_type}' not supported. Use 'application/json'",
        )
    try:
        body = await request.json()
    except ValueError as error:
        raise BandwidthRefusal(400, "request-validation", "The body is not JSON") from error
    if not isinstance(body, dict):
        raise BandwidthRefusal(400, "request-validation", "The body is not a JSON object")
    return body


def check_message(fields: dict[str, Any]) -> None:
    """Raises BandwidthRefusal with one entry per bad field."""
    errors = {
        name: description
        for name, description in (
            ("applicationId", _application(fields.get("applicationId"))),
            ("from", _number(fields.get("from"))),
            ("to", _receivers(fields.get("to"))),
            ("text", _text(fields)),
            ("media", _media(fields.get("media"))),
            ("tag", _tag(fields.get("tag"))),
            ("priority", _priority(fields.get("priority"))),
        )
        if description is not None
    }
    if errors:
        raise BandwidthRefusal(400, "request-validation", "Your request could not be accepted", fields=errors)


def _application(value: object) -> str | None:
    return None if isinstance(value, str) and value else "is required"


def _number(value: object) -> str | None:
    if isinstance(value, str) and is_phone_number(value):
        return None
    return f"'{value}' must be replaced with a valid E164 formatted telephone number"


def _receivers(value: object) -> str | None:
    receivers = value if isinstance(value, list) else [value]
    if len(receivers) != 1:
        return "must be one number: the sandbox carries no group messages"
    return _number(receivers[0])


def _text(fields: dict[str, Any]) -> str | None:
    text = fields.get("text")
    if text is not None and (not isinstance(text, str) or len(text) > MAX_TEXT):
        return f"must be {MAX_TEXT} characters or less"
    return None if text or fields.get("media") else "text or media is required"


def _media(value: object) -> str | None:
    urls = [] if value is None else value
    is_fine = isinstance(urls, list) and all(
        isinstance(url, str) and len(url) <= _MAX_URL and is_http_url(url) for url in urls
    )
    return None if is_fine else f"must be URLs of at most {_MAX_URL} characters"


def _tag(value: object) -> str | None:
    is_fine = value is None or (isinstance(value, str) and len(value) <= _MAX_TAG)
    return None if is_fine else f"must be {_MAX_TAG} characters or less"


def _priority(value: object) -> str | None:
    return None if value in (None, "default", "high") else "must be default or high"
