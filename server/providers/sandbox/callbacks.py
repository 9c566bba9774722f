"""Signed callbacks, posted (or asked for with GET) and posted again as Twilio does it."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

import aiohttp
import structlog
from yarl import URL

log = structlog.get_logger(__name__)

_AT_ONCE = 64

# What Twilio reads of an answer, and one byte more to see that there is more.
_ANSWER_READ = 65_537

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


@dataclass(frozen=True)
class Outcome:
    """How posting ended: with a status, or None where nobody answered; `failure` is None where it was taken."""

    status: int | None
    failure: str | None
    content_type: str = ""
    # Its beginning, where it is longer than Twilio reads.
    body: bytes = b""


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


def _status(fields: Mapping[str, str]) -> str | None:
    """What a callback tells, for the log: of a message, a recording, a conference or a call."""
    names = ("SmsStatus", "RecordingStatus", "StatusCallbackEvent", "CallStatus")
    return next((fields[name] for name in names if name in fields), None)


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

    async def post(self, url: str, fields: Mapping[str, str], *, idempotency_token: str) -> Outcome:
        """Post until it is taken or the retries of the URL's fragment are used up; then it is lost, as at Twilio."""
        target = target_of(url)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": signature(self._auth_token, target.url, fields),
            "I-Twilio-Idempotency-Token": idempotency_token,
        }
        return await self._send(target, fields, headers, body=urlencode(fields))

    async def get(self, url: str, fields: Mapping[str, str], *, idempotency_token: str) -> Outcome:
        """As `post`, with the fields in the URL, which alone is signed."""
        target = target_of(url)
        joint = "&" if urlsplit(target.url).query else "?"
        target = replace(target, url=target.url.rstrip("?") + joint + urlencode(fields))
        headers = {
            "X-Twilio-Signature": signature(self._auth_token, target.url, {}),
            "I-Twilio-Idempotency-Token": idempotency_token,
        }
        return await self._send(target, fields, headers, body=None)

    async def _send(
        self, target: Target, fields: Mapping[str, str], headers: Mapping[str, str], *, body: str | None
    ) -> Outcome:
        async with self._slots:
            try:
                async with asyncio.timeout(target.timeout.total):
                    for _ in range(1 + target.retries):
                        outcome = await self._attempt(target, body, headers)
                        if outcome.failure is None or outcome.failure not in target.retry_on:
                            break
            except TimeoutError:
                outcome = Outcome(status=None, failure="tt")
        if outcome.failure is not None:
            log.info("sandbox.callback.lost", status=_status(fields), failure=outcome.failure)
        return outcome

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _attempt(self, target: Target, body: str | None, headers: Mapping[str, str]) -> Outcome:
        """A failure is its class in the words of a retry policy."""
        try:
            outcome, challenged = await self._exchange(target, body, headers)
            if challenged and target.authorization is not None:
                outcome, _ = await self._exchange(target, body, {**headers, "Authorization": target.authorization})
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Outcome(status=None, failure="ct")
        except (aiohttp.ClientError, aiohttp.SocketTimeoutError):
            return Outcome(status=None, failure="rt")
        return outcome

    async def _exchange(self, target: Target, body: str | None, headers: Mapping[str, str]) -> tuple[Outcome, bool]:
        # `encoded` keeps the URL byte for byte as it was signed.
        async with self._session.request(
            "GET" if body is None else "POST",
            URL(target.url, encoded=True),
            data=body,
            headers=headers,
            timeout=target.timeout,
            allow_redirects=False,
        ) as response:
            read = bytearray()
            while len(read) < _ANSWER_READ and (part := await response.content.read(_ANSWER_READ - len(read))):
                read += part
            status = response.status
            outcome = Outcome(
                status=status,
                failure=None if 200 <= status < 300 else "4xx" if status < 500 else "5xx",
                content_type=response.content_type,
                body=bytes(read),
            )
            return outcome, status == 401 and "WWW-Authenticate" in response.headers
