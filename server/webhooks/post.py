"""One POST to an endpoint: what was sent, what came of it."""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp

from server.accounts.callbacks import CallbackCredentials
from server.background import parse_retry_after
from server.config import Network
from server.guard import guarded_connector
from server.webhooks import signing

# A 2xx has to come within this, the look-up of the name and the connection included.
TIMEOUT = timedelta(seconds=15)

_KEPT_BODY_BYTES = 2048
_LONGEST_ERROR = 500
# aiohttp stops reading from the socket when it holds twice this.
_READ_BUFFER_BYTES = 4096

_HEADERS = {
    "content-type": "application/json",
    "user-agent": "CommonServices-Webhooks/1",
    "accept-encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a POST: a status, or else an error."""

    attempted_at: datetime
    duration_ms: int
    status: int | None
    body: str | None
    error: str | None
    retry_after: timedelta | None


def open_session(allowed_networks: Sequence[Network], *, timeout: timedelta = TIMEOUT) -> aiohttp.ClientSession:
    """What all POSTs of a worker go through: no cookies, no proxies, no address that is not public or allowed."""
    return aiohttp.ClientSession(
        connector=guarded_connector(allowed_networks),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout.total_seconds()),
        headers=_HEADERS,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER_BYTES,
    )


async def post(
    session: aiohttp.ClientSession, *, url: str, event_id: str, body: bytes, credentials: CallbackCredentials
) -> Answer:
    """Send a webhook and wait for its answer, which is not followed elsewhere."""
    attempted_at = datetime.now(UTC)
    began = time.perf_counter()
    status, error, retry_after = None, None, None
    kept = bytearray()
    try:
        headers = _headers(event_id=event_id, body=body, credentials=credentials, at=attempted_at)
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
            retry_after = parse_retry_after(response.headers.get("retry-after"), now=attempted_at)
            await _read_beginning(response, kept)
    except TimeoutError:
        error = f"no answer within {session.timeout.total:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as failure:
        error = _described(failure)
    if status is not None:
        # An answer that broke off after its status is an answer.
        error = None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"HTTP {status}"
    return Answer(
        attempted_at=attempted_at,
        duration_ms=round((time.perf_counter() - began) * 1000),
        status=status,
        body=None if status is None else kept.decode(errors="replace").replace("\0", ""),
        error=error,
        retry_after=retry_after,
    )


def _headers(*, event_id: str, body: bytes, credentials: CallbackCredentials, at: datetime) -> Mapping[str, str]:
    user = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    signed = signing.headers(
        webhook_id=event_id, timestamp=int(at.timestamp()), body=body, secrets=credentials.signing_secrets
    )
    return {"authorization": f"Basic {user}", **signed}


async def _read_beginning(response: aiohttp.ClientResponse, kept: bytearray) -> None:
    """Read what is kept; the connection of a longer body is closed, not read to its end."""
    while len(kept) < _KEPT_BODY_BYTES:
        part = await response.content.read(_KEPT_BODY_BYTES - len(kept))
        if not part:
            return
        kept += part
    if not response.content.at_eof():
        response.close()


def _described(failure: Exception) -> str:
    cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
    return f"{type(cause).__name__}: {cause}".replace("\0", "")[:_LONGEST_ERROR]
