"""What Envoy says itself: limits, what is malformed, and an api that is not there."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    status_service_pb2,
)
from google.protobuf.message import Message

from server.rpc.errors import DOMAIN
from tests.clients import Refusal, refusal
from tests.rest.conftest import AUTHORIZATION
from tests.rest.front import Front, running_envoy, until_healthy
from tests.rest.stand_in import Context, StandIn, empty

METADATA = tuple(AUTHORIZATION.items())
MIB = 1024 * 1024


def envoy_error(code: int, status: str, reason: str, message: str) -> object:
    return {"error": {"code": code, "status": status, "message": message, "reason": reason, "details": []}}


async def refused(channel: grpc.aio.Channel, request: api_key_service_pb2.CreateApiKeyRequest) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api_key_service_pb2_grpc.ApiKeyServiceStub(channel).CreateApiKey(request, metadata=METADATA)
    assert DOMAIN.encode() in dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    return refusal(caught.value)


@pytest.fixture
async def strict(_stand_in: StandIn) -> AsyncIterator[Front]:
    """Envoy that lets an address ask twice at once, and then once a second."""
    async with running_envoy([_stand_in.target], requests_per_second=1) as front:
        await until_healthy(front, 1)
        yield front


@pytest.fixture
async def hasty(_stand_in: StandIn) -> AsyncIterator[Front]:
    """Envoy with little patience."""
    async with running_envoy([_stand_in.target], answer_seconds=0.3) as front:
        await until_healthy(front, 1)
        yield front


async def test_largest_body_is_one_mebibyte(
    rest: aiohttp.ClientSession, native: grpc.aio.Channel, stand_in: StandIn
) -> None:
    stand_in.answers["CreateApiKey"] = empty
    frame = len('{"request_id":""}')
    too_large = envoy_error(413, "RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE", "the body is larger than 1 MiB")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 60_000

    for size, status in ((MIB, 201), (MIB + 1, 413), (5 * MIB, 413)):
        body = b'{"request_id":"%s"}' % (b"x" * (size - frame))
        async with rest.post("/api/v1/api_keys", data=io.BytesIO(body)) as answer:
            assert answer.status == status
            if status == 413:
                assert await answer.json() == too_large
    async with rest.post("/api/v1/api_keys", data=chunks()) as answer:
        assert (answer.status, await answer.json()) == (413, too_large)
    large = await refused(native, api_key_service_pb2.CreateApiKeyRequest(request_id="x" * MIB))
    assert (large.code, large.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("fields", [{"x-large": "x" * 33_000}, {f"x-field-{n}": "" for n in range(101)}])
async def test_too_many_header_fields_are_431(rest: aiohttp.ClientSession, fields: dict[str, str]) -> None:
    async with rest.get("/api/v1/status", headers=fields) as answer:
        assert answer.status == 431
        assert (await answer.json())["error"]["reason"] == "HEADERS_TOO_LARGE"


async def test_address_that_asks_too_often_is_told_to_wait(strict: Front, stand_in: StandIn) -> None:
    stand_in.answers["GetStatus"] = _ok
    other_address = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))

    async with aiohttp.ClientSession(strict.url, connector=other_address) as session:
        for _ in range(20):
            answer = await session.get("/api/v1/status")
            if answer.status != 200:
                break
        body = await answer.json()

    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert body == envoy_error(
        429, "RESOURCE_EXHAUSTED", "RATE_LIMITED", "too many requests from this address; see Retry-After"
    )


async def test_this_machines_own_programs_are_not_limited(strict: Front, stand_in: StandIn) -> None:
    stand_in.answers["GetStatus"] = _ok

    async with aiohttp.ClientSession(strict.url) as session:
        answers = [await session.get("/api/v1/status") for _ in range(20)]

    assert {answer.status for answer in answers} == {200}


async def test_slow_answer_is_a_timeout(hasty: Front, stand_in: StandIn) -> None:
    cancelled = asyncio.Event()

    async def never(_request: Message, _context: Context) -> Message:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("nothing sets it")

    stand_in.answers["CreateApiKey"] = never

    async with aiohttp.ClientSession(hasty.url, headers=AUTHORIZATION) as session:
        answer = await session.post("/api/v1/api_keys", json={})
        body = await answer.json()
    async with grpc.aio.insecure_channel(hasty.target) as channel:
        late = await refused(channel, api_key_service_pb2.CreateApiKeyRequest())

    assert answer.status == 504
    assert body == envoy_error(504, "DEADLINE_EXCEEDED", "TIMEOUT", "no answer within the time limit")
    assert (late.code, late.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT")
    async with asyncio.timeout(30):
        await cancelled.wait()


async def test_stream_outlives_the_time_limit_of_answers(hasty: Front, stand_in: StandIn) -> None:
    async def slow(_request: Message, context: Context) -> None:
        for number in range(3):
            await context.write(event_service_pb2.StreamEventsResponse(cursor=str(number)))
            await asyncio.sleep(0.4)

    stand_in.streams["StreamEvents"] = slow

    async with aiohttp.ClientSession(hasty.url, headers=AUTHORIZATION) as session:
        answer = await session.get("/api/v1/events/stream")
        body = await answer.text()
    async with grpc.aio.insecure_channel(hasty.target) as channel:
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        request = event_service_pb2.StreamEventsRequest()
        responses = [response.cursor async for response in stub.StreamEvents(request, metadata=METADATA)]

    assert body == "".join(f'data: {{"events":[],"cursor":"{number}"}}\n\n' for number in range(3))
    assert responses == ["0", "1", "2"]


async def test_api_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with running_envoy([f"127.0.0.1:{unused.getsockname()[1]}"]) as front:
            async with aiohttp.ClientSession(front.url) as session:
                answer = await session.get("/api/v1/status")
                body = await answer.json()
            async with grpc.aio.insecure_channel(front.target) as channel:
                away = await refused(channel, api_key_service_pb2.CreateApiKeyRequest())

    assert answer.status == 503
    assert body == envoy_error(503, "UNAVAILABLE", "UNAVAILABLE", "the service cannot be reached now; try again")
    assert (away.code, away.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/nothing", "/api/v1/api_keys%2f1", "/commonservices.v1.StatusService/GetStatus"],
)
async def test_unknown_path_is_not_found(rest: aiohttp.ClientSession, path: str) -> None:
    async with rest.get(path) as answer:
        assert answer.status == 404
        assert await answer.json() == envoy_error(
            404, "NOT_FOUND", "ENDPOINT_NOT_FOUND", "there is no such endpoint, or not with this method"
        )


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE"])
async def test_wrong_method_is_not_found(rest: aiohttp.ClientSession, method: str) -> None:
    async with rest.request(method, "/api/v1/status") as answer:
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("head", "status", "told"),
    [
        (b"GET /api/v1/status HTTP/1.0", b"200", b'{"message":"OK"}'),
        (b"GET /api/v1//status HTTP/1.1\r\nhost: any.example", b"200", b'{"message":"OK"}'),
        (b"GET /api/v1/status/ HTTP/1.1\r\nhost: a", b"200", b'{"message":"OK"}'),
        (b"GET /api/v1/%2e%2e/v1/status HTTP/1.1\r\nhost: a", b"200", b'{"message":"OK"}'),
        (b"GET /api/v1/status HTTP/1.1", b"400", b'"reason":"MALFORMED_REQUEST"'),
        (b"FETCH /api/v1/status HTTP/1.1\r\nhost: a", b"400", b'"reason":"MALFORMED_REQUEST"'),
        (b"GET /api/v1/status HTTP/1.1\r\nhost: a\r\nx_forged: 1", b"400", b'"reason":"MALFORMED_REQUEST"'),
        (
            b"POST /api/v1/api_keys HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            b"400",
            b'"reason":"MALFORMED_REQUEST"',
        ),
    ],
)
async def test_odd_request_gets_an_answer(
    edge: Front, stand_in: StandIn, head: bytes, status: bytes, told: bytes
) -> None:
    stand_in.answers["GetStatus"] = _ok
    host, _, port = edge.target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    writer.write(head + b"\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()

    assert answer.split(b" ", 2)[1] == status
    assert told in answer


async def _ok(_request: Message, _context: Context) -> Message:
    return status_service_pb2.Status(message="OK")
