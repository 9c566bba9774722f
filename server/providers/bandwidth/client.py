"""Bandwidth's HTTP: its messages resource over one pool, with timeouts and failures that keep what was answered."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from server.background import parse_retry_after
from server.providers.bandwidth.oauth import AuthorizedSession, ClientCredentials
from server.providers.http import NoAnswer, exchange


class Refusal(Exception):
    """An answer that is no success. `kind` is the `type` of Bandwidth's error, None where it is none of Bandwidth's."""

    def __init__(self, *, status: int, kind: str | None, retry_after: timedelta | None) -> None:
        super().__init__(f"status {status}" if kind is None else f"status {status}, type {kind}")
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


class BandwidthClient:
    """The messages of one account; made inside a running event loop. Every method raises Refusal, NotReached, NoAnswer
    or, where no access token is to be had, ProviderUnavailable."""

    def __init__(
        self,
        *,
        account_id: str,
        credentials: ClientCredentials,
        base_url: str,
        connections: int,
        timeout: timedelta,
    ) -> None:
        self._url = f"{base_url}/api/v2/users/{account_id}/messages"
        self._session = AuthorizedSession(credentials, connections=connections, timeout=timeout)

    async def create_message(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Bandwidth's message, made of these fields."""
        return await self._request("POST", json=fields)

    async def list_messages(self, filters: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Every message that fits the filters, of which there must be one, page after page."""
        page_token: str | None = None
        while True:
            asked = {**filters, **({} if page_token is None else {"pageToken": page_token})}
            page = await self._request("GET", params=asked)
            messages = page.get("messages")
            if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
                raise NoAnswer("the answer is not a list of messages")
            for message in messages:
                yield message
            page_token = (page.get("pageInfo") or {}).get("nextPageToken")
            if not page_token or not messages:
                return

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.aclose()

    async def _request(self, method: str, **request: Any) -> dict[str, Any]:
        with exchange():
            async with self._session.request(method, self._url, **request) as answer:
                status, text, wait = answer.status, await answer.text(), answer.headers.get("Retry-After")
        body = _json_object(text)
        if not 200 <= status < 300:
            raise Refusal(status=status, kind=_kind(body), retry_after=parse_retry_after(wait, now=datetime.now(UTC)))
        if body is None:
            raise NoAnswer("the answer is not a JSON object")
        return body


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _kind(body: Mapping[str, Any] | None) -> str | None:
    kind = None if body is None else body.get("type")
    return kind if isinstance(kind, str) and kind else None
