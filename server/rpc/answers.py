"""What an answer says beside its message: initial metadata, which REST turns into a status and header fields."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]


async def replayed(context: Context) -> None:
    """Say that the answer is that of an earlier request with the same request id."""
    await context.send_initial_metadata((("idempotent-replayed", "true"),))


async def paged(context: Context, next_page_token: str) -> None:
    """Name the next page in X-Next-Page-Token and Link (RFC 8288): a REST list is a bare array, without room for it."""
    original = next((v for k, v in context.invocation_metadata() or () if k == "x-envoy-original-path"), None)
    if not next_page_token or original is None:
        return
    url = urlsplit(str(original))
    query = [(k, v) for k, v in parse_qsl(url.query, keep_blank_values=True) if k != "page_token"]
    target = f"{url.path}?{urlencode([*query, ('page_token', next_page_token)])}"
    await context.send_initial_metadata((("x-next-page-token", next_page_token), ("link", f'<{target}>; rel="next"')))
