import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiohttp import web

from server.providers.bandwidth.oauth import AuthorizedSession, ClientCredentials
from server.providers.ports import ProviderUnavailable
from tests.messages.support import until
from tests.providers import bandwidth
from tests.providers.servers import closed_port_url, listening


@dataclass
class Vendor:
    """A token endpoint that numbers its tokens, and an API that answers with the token it was asked with."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    expires_in: int = 3600
    refused: set[str] = field(default_factory=set)
    tokens: int = 0
    asked: int = 0
    hold: asyncio.Event | None = None
    base_url: str = ""

    async def token(self, request: web.Request) -> web.Response:
        self.tokens += 1
        if self.hold is not None:
            await self.hold.wait()
        assert dict(await request.post()) == {"grant_type": "client_credentials"}
        told = f'{{"access_token": "token-{self.tokens}", "expires_in": {self.expires_in}}}'
        return web.Response(status=self.status, headers=self.headers, text=told if self.body is None else self.body)

    async def api(self, request: web.Request) -> web.Response:
        self.asked += 1
        scheme, token = request.headers["Authorization"].split()
        assert scheme == "Bearer"
        return web.Response(status=401 if token in self.refused else 200, text=token)


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    app = web.Application()
    app.router.add_post("/token", vendor.token)
    app.router.add_get("/api", vendor.api)
    async with listening(app) as vendor.base_url:
        yield vendor


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@asynccontextmanager
async def session_at(token_url: str, clock: Clock | None = None) -> AsyncIterator[AuthorizedSession]:
    credentials = ClientCredentials(bandwidth.CLIENT_ID, bandwidth.CLIENT_SECRET, token_url)
    session = AuthorizedSession(credentials, connections=50, timeout=timedelta(seconds=30), clock=clock or Clock())
    yield session
    await session.aclose()


async def ask(session: AuthorizedSession, vendor: Vendor) -> str:
    """Ask the API; status and token of the answer."""
    async with session.request("GET", f"{vendor.base_url}/api") as answer:
        return f"{answer.status} {await answer.text()}"


async def test_one_token_serves_all_who_need_one_at_once(vendor: Vendor) -> None:
    async with session_at(f"{vendor.base_url}/token") as session:
        answers = await asyncio.gather(*(ask(session, vendor) for _ in range(20)))

    assert set(answers) == {"200 token-1"}
    assert (vendor.tokens, vendor.asked) == (1, 20)


async def test_token_is_replaced_before_it_ends_and_nobody_waits_for_that(vendor: Vendor) -> None:
    clock = Clock()
    async with session_at(f"{vendor.base_url}/token", clock) as session:
        await ask(session, vendor)
        clock.time = 3539
        assert await ask(session, vendor) == "200 token-1"
        assert vendor.tokens == 1
        vendor.hold = asyncio.Event()
        clock.time = 3541
        assert [await ask(session, vendor) for _ in range(3)] == ["200 token-1"] * 3
        vendor.hold.set()

        async def is_replaced() -> bool:
            return await ask(session, vendor) == "200 token-2"

        await until(is_replaced)

    assert vendor.tokens == 2


async def test_token_serves_to_its_end_where_no_new_one_is_to_be_had(
    vendor: Vendor, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    async with session_at(f"{vendor.base_url}/token", clock) as session:
        await ask(session, vendor)
        vendor.status = 500
        clock.time = 3599
        assert await ask(session, vendor) == "200 token-1"
        await until(lambda: "bandwidth.no_token" in capsys.readouterr().out)
        clock.time = 3600
        with pytest.raises(ProviderUnavailable):
            await ask(session, vendor)
        vendor.status = 200
        assert await ask(session, vendor) == "200 token-4"


async def test_short_token_serves_for_half_its_time(vendor: Vendor) -> None:
    clock = Clock()
    vendor.expires_in = 10
    async with session_at(f"{vendor.base_url}/token", clock) as session:
        await ask(session, vendor)
        clock.time = 4.9
        await ask(session, vendor)

    assert vendor.tokens == 1


async def test_refused_token_is_replaced_once_for_all(vendor: Vendor) -> None:
    async with session_at(f"{vendor.base_url}/token") as session:
        await ask(session, vendor)
        vendor.refused = {"token-1"}
        answers = await asyncio.gather(*(ask(session, vendor) for _ in range(20)))

    assert set(answers) == {"200 token-2"}
    assert vendor.tokens == 2


async def test_request_is_repeated_only_once(vendor: Vendor) -> None:
    vendor.refused = {"token-1", "token-2", "token-3"}
    async with session_at(f"{vendor.base_url}/token") as session:
        assert await ask(session, vendor) == "401 token-2"

    assert (vendor.tokens, vendor.asked) == (2, 2)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500, 503])
async def test_without_a_token_nothing_is_asked(vendor: Vendor, status: int) -> None:
    vendor.status = status
    vendor.headers = {"Retry-After": "7", "Location": f"{vendor.base_url}/api"}
    async with session_at(f"{vendor.base_url}/token") as session:
        with pytest.raises(ProviderUnavailable, match=f"status {status}") as failure:
            await ask(session, vendor)

    assert failure.value.retry_after == timedelta(seconds=7)
    assert vendor.asked == 0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"access_token": "", "expires_in": 1}',
        '{"access_token": 7, "expires_in": 1}',
        '{"access_token": "a\\nb", "expires_in": 1}',
        '{"access_token": "\\u00fc", "expires_in": 1}',
        '{"access_token": "a"}',
        '{"access_token": "a", "expires_in": 0}',
        '{"access_token": "a", "expires_in": "1"}',
    ],
)
async def test_answer_that_is_no_token_is_none(vendor: Vendor, body: str) -> None:
    vendor.body = body
    async with session_at(f"{vendor.base_url}/token") as session:
        with pytest.raises(ProviderUnavailable):
            await ask(session, vendor)

    assert vendor.asked == 0


async def test_unreachable_token_endpoint_is_tried_again_by_the_next(vendor: Vendor) -> None:
    async with session_at(closed_port_url()) as session:
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                await ask(session, vendor)


async def test_who_is_cancelled_takes_the_token_from_nobody(vendor: Vendor) -> None:
    vendor.hold = asyncio.Event()
    async with session_at(f"{vendor.base_url}/token") as session:
        first, second = (asyncio.create_task(ask(session, vendor)) for _ in range(2))
        await until(lambda: vendor.tokens == 1)
        first.cancel()
        vendor.hold.set()

        assert await second == "200 token-1"
        assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_close_ends_what_is_under_way(vendor: Vendor) -> None:
    vendor.hold = asyncio.Event()
    async with session_at(f"{vendor.base_url}/token") as session:
        asking = asyncio.create_task(ask(session, vendor))
        await until(lambda: vendor.tokens == 1)
        await session.aclose()

        with pytest.raises(asyncio.CancelledError):
            await asking


def test_secret_is_not_shown() -> None:
    assert bandwidth.CLIENT_SECRET not in repr(bandwidth.credentials("https://api.example"))
