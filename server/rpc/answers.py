"""What an answer says beside its message: initial metadata, which REST turns into a status and header fields."""

from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import Message

Context = grpc.aio.ServicerContext[Any, Any]


async def replayed(context: Context) -> None:
    """Say that the answer is that of an earlier request with the same request id."""
    await context.send_initial_metadata((("idempotent-replayed", "true"),))


async def paged(context: Context, request: Message, next_page_token: str) -> None:
    """Name the next page in X-Next-Page-Token and Link (RFC 8288): a REST list is a bare array, without room for it.

    The link is whole even where the filter came as a JSON body: what the path does not say is in its query.
    """
    original = next((v for k, v in context.invocation_metadata() or () if k == "x-envoy-original-path"), None)
    if not next_page_token or original is None:
        return
    path = urlsplit(str(original)).path
    in_path = {unquote(segment) for segment in path.split("/")}
    asked = json_format.MessageToDict(request, preserving_proto_field_name=True) | {"page_token": next_page_token}
    not_in_path = {k: v for k, v in asked.items() if not (isinstance(v, str) and v in in_path)}
    # Not as a form would: Envoy takes a plus sign for itself, as phone numbers want it.
    target = f"{path}?{urlencode(not_in_path, doseq=True, quote_via=quote)}"
    await context.send_initial_metadata((("x-next-page-token", next_page_token), ("link", f'<{target}>; rel="next"')))
