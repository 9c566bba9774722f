"""The forms of Twilio's answers: errors, dates and the two ways of paging."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from aiohttp import web

API_VERSION = "2010-04-01"

Json = dict[str, Any]
T = TypeVar("T")

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_PAGING = ("Page", "PageSize", "PageToken")


class Refusal(Exception):
    """A request that Twilio would not carry out, with the code it says so by."""

    def __init__(self, status: int, code: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def answer(self) -> web.Response:
        """Twilio's error JSON."""
        body = {
            "code": self.code,
            "message": self.message,
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return web.json_response(body, status=self.status, headers=headers)


def not_found(path: str) -> Refusal:
    """What Twilio says of a resource that is not there."""
    return Refusal(404, 20404, f"The requested resource {path} was not found")


def rfc2822(timestamp: float | None) -> str | None:
    """A time as the 2010 API writes it."""
    return None if timestamp is None else format_datetime(datetime.fromtimestamp(int(timestamp), UTC))


def iso8601(timestamp: float) -> str:
    """A time as the newer APIs write it."""
    return datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list: where it begins, and the queries of this page and its neighbours."""

    records: Sequence[T]
    start: int
    number: int
    size: int
    first: str
    this: str
    previous: str | None
    next: str | None


def page_of(request: web.Request, records: Sequence[T], *, sid: Callable[[T], str]) -> Page[T]:
    """The page asked for. A token names the last record of the page before, so new records do not shift pages."""
    number = _whole(request, "Page", default=0, least=0)
    size = min(_whole(request, "PageSize", default=_DEFAULT_PAGE_SIZE, least=1), _MAX_PAGE_SIZE)
    last_seen = request.query.get("PageToken", "").removeprefix("PA")
    start = next((i + 1 for i, record in enumerate(records) if sid(record) == last_seen), number * size)
    shown = records[start : start + size]
    more = start + size < len(records)
    return Page(
        records=shown,
        start=start,
        number=number,
        size=size,
        first=_query(request, Page=0, PageSize=size),
        this=_query(request, Page=number, PageSize=size),
        previous=_query(request, Page=number - 1, PageSize=size) if number else None,
        next=_query(request, Page=number + 1, PageSize=size, PageToken=f"PA{sid(shown[-1])}") if more else None,
    )


def list_2010(request: web.Request, page: Page[T], *, key: str, records: list[Json]) -> web.Response:
    """A list as the 2010 API answers it."""
    path = request.path
    return web.json_response(
        {
            key: records,
            "page": page.number,
            "page_size": page.size,
            "start": page.start,
            "end": max(page.start + len(records) - 1, 0),
            "uri": path + page.this,
            "first_page_uri": path + page.first,
            "previous_page_uri": None if page.previous is None else path + page.previous,
            "next_page_uri": None if page.next is None else path + page.next,
        }
    )


def list_with_meta(request: web.Request, page: Page[T], *, key: str, records: list[Json]) -> web.Response:
    """A list as the newer APIs answer it."""
    url = absolute_url(request, request.path)
    meta = {
        "key": key,
        "page": page.number,
        "page_size": page.size,
        "url": url + page.this,
        "first_page_url": url + page.first,
        "previous_page_url": None if page.previous is None else url + page.previous,
        "next_page_url": None if page.next is None else url + page.next,
    }
    return web.json_response({"meta": meta, key: records})


def absolute_url(request: web.Request, path: str) -> str:
    """A path of this server as the caller reaches it."""
    return str(request.url.origin()) + path


def _query(request: web.Request, **paging: object) -> str:
    filters = [(name, value) for name, value in request.query.items() if name not in _PAGING]
    return "?" + urlencode([*filters, *paging.items()])


def _whole(request: web.Request, name: str, *, default: int, least: int) -> int:
    written = request.query.get(name)
    if written is None:
        return default
    if not written.isdecimal() or int(written) < least:
        raise Refusal(400, 20001, f"{name} must be a whole number of at least {least}")
    return int(written)
