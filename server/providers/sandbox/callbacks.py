"""Signed callbacks, posted and posted again as Twilio does it."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

import aiohttp
import structlog
from yarl import URL

log = structlog.get_logger(__name__)

_AT_ONCE = 64

# Bounds and default of each limit in the URL's fragment, in milliseconds; of `rc` in times.
_LIMITS = {"ct": (100, 10_000, 5_000), "rt": (100, 15_000, 15_000), "tt": (100, 15_000, 15_000), "rc": (0, 5, 1)}


def signature(auth_token: str, url: str, fields: Mapping[str, str]) -> str:
    """X-Twilio-Signature of a form post to `url`."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


@dataclass(frozen=True)
class Target:
    """A callback URL taken apart: what is called, with which credentials, and the overrides of its fragment."""

    url: str
    authorization: str | None
    timeout: aiohttp.ClientTimeout
    retries: int
    retry_on: frozenset[str]


def target_of(url: str) -> Target:
    """Read a callback URL; its fragment and its credentials are neither signed nor sent with it."""
    parts = urlsplit(url)
    overrides = parse_qs(parts.fragment)
    limits = {name: _limit(overrides, name) for name in _LIMITS}
    policy = ",".join(overrides.get("rp", ["ct"]))
    return Target(
        url=urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")),
        authorization=_authorization(parts),
        timeout=aiohttp.ClientTimeout(
            total=limits["tt"] / 1000, sock_connect=limits["ct"] / 1000, sock_read=limits["rt"] / 1000
        ),
        retries=limits["rc"],
        retry_on=frozenset({"4xx", "5xx", "ct", "rt"} if policy == "all" else policy.split(",")),
    )


def _authorization(parts: SplitResult) -> str | None:
    return None if parts.username is None else aiohttp.encode_basic_auth(parts.username, parts.password or "")


def _limit(overrides: Mapping[str, list[str]], name: str) -> int:
    least, most, default = _LIMITS[name]
    written = overrides.get(name, [""])[0]
    return min(max(int(written), least), most) if written.isdecimal() else default


class CallbackSender:
    """Posts callbacks signed with one auth token; made inside a running event loop."""

    def __init__(self, *, auth_token: str) -> None:
        self._auth_token = auth_token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "TwilioProxy/1.1", "Accept": "*/*"},
        )
        # A slot is waited for before the clock of the exchange starts, so a burst does not time itself out.
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def post(self, url: str, fields: Mapping[str, str], *, idempotency_token: str) -> None:
        """Post until it is taken or the retries of the URL's fragment are used up; then it is lost, as at Twilio."""
        target = target_of(url)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": signature(self._auth_token, target.url, fields),
            "I-Twilio-Idempotency-Token": idempotency_token,
        }
        async with self._slots:
            failure = None
            try:
                async with asyncio.timeout(target.timeout.total):
                    for _ in range(1 + target.retries):
                        failure = await self._attempt(target, urlencode(fields), headers)
                        if failure is None or failure not in target.retry_on:
                            break
            except TimeoutError:
                failure = "tt"
        if failure is not None:
            log.info("sandbox.callback.lost", status=fields.get("MessageStatus"), failure=failure)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _attempt(self, target: Target, body: str, headers: Mapping[str, str]) -> str | None:
        """None when it was taken, else the class of the failure in the words of a retry policy."""
        try:
            status, challenged = await self._exchange(target, body, headers)
            if status == 401 and challenged and target.authorization is not None:
                status, _ = await self._exchange(target, body, {**headers, "Authorization": target.authorization})
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return "ct"
        except (aiohttp.ClientError, aiohttp.SocketTimeoutError):
            return "rt"
        if 200 <= status < 300:
            return None
        return "4xx" if status < 500 else "5xx"

    async def _exchange(self, target: Target, body: str, headers: Mapping[str, str]) -> tuple[int, bool]:
        # `encoded` keeps the URL byte for byte as it was signed.
        async with self._session.post(
            URL(target.url, encoded=True),
            data=body,
            headers=headers,
            timeout=target.timeout,
            allow_redirects=False,
        ) as response:
            return response.status, "WWW-Authenticate" in response.headers
