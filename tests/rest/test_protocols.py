"""The other protocols on the same port: native gRPC, gRPC-Web, server-sent events; and pages of other origins."""

import asyncio
import base64
import re

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    event_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
)
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from server import errors
from tests.clients import refusal
from tests.rest.conftest import AUTHORIZATION
from tests.rest.stand_in import Context, StandIn, empty

METADATA = tuple(AUTHORIZATION.items())
FRAME_HEAD = 5
TRAILERS_FLAG = 0x80


class TooSlow(errors.ResourceExhausted):
    """A failure of a stream."""

    reason = "SUBSCRIBER_TOO_SLOW"


async def test_health_and_reflection_pass_through(native: grpc.aio.Channel) -> None:
    check = native.unary_unary("/grpc.health.v1.Health/Check", bytes, health_pb2.HealthCheckResponse.FromString)
    reflect = native.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )

    health = await check(b"")
    call = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = {service.name async for answer in call for service in answer.list_services_response.service}

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert "commonservices.v1.MessageService" in listed


async def test_native_call_is_not_touched(native: grpc.aio.Channel, stand_in: StandIn) -> None:
    seen: dict[str, str | bytes] = {}

    async def listed(_request: Message, context: Context) -> Message:
        seen.update(context.invocation_metadata() or ())
        return api_key_service_pb2.ListApiKeysResponse(next_page_token="next")

    stand_in.answers["ListApiKeys"] = listed
    forged = (*METADATA, ("x-envoy-original-path", "/forged"))

    request = api_key_service_pb2.ListApiKeysRequest()
    answer = await api_key_service_pb2_grpc.ApiKeyServiceStub(native).ListApiKeys(request, metadata=forged)

    assert answer.next_page_token == "next"
    assert "x-envoy-original-path" not in seen


@pytest.mark.parametrize("path", ["/commonservices.v1.ApiKeyService/Nothing", "/nothing"])
async def test_unknown_rpc_is_unimplemented(native: grpc.aio.Channel, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await native.unary_unary(path, bytes, bytes)(b"", metadata=METADATA)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/grpc-web-text"])
async def test_grpc_web_call(rest: aiohttp.ClientSession, stand_in: StandIn, content_type: str) -> None:
    async def created(_request: Message, _context: Context) -> Message:
        return api_key_service_pb2.CreateApiKeyRequest(bearer_id=7)

    stand_in.answers["CreateApiKey"] = created
    frame = b"\x00\x00\x00\x00\x00"
    is_text = content_type.endswith("text")
    headers = {"content-type": content_type, "accept": content_type, "origin": "http://page.example"}

    async with rest.post(
        "/commonservices.v1.ApiKeyService/CreateApiKey",
        data=base64.b64encode(frame) if is_text else frame,
        headers=headers,
    ) as answer:
        body = await answer.read()

    if is_text:
        # Frames are encoded one by one.
        body = b"".join(base64.b64decode(part) for part in re.findall(rb"[^=]+=*", body))
    length = int.from_bytes(body[1:FRAME_HEAD])
    message, trailers = body[FRAME_HEAD : FRAME_HEAD + length], body[FRAME_HEAD + length :]
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert api_key_service_pb2.CreateApiKeyRequest.FromString(message).bearer_id == 7
    assert trailers[0] == TRAILERS_FLAG
    assert b"grpc-status:0" in trailers


async def test_page_of_another_origin_may_call(rest: aiohttp.ClientSession) -> None:
    asked = {
        "origin": "http://page.example",
        "access-control-request-method": "DELETE",
        "access-control-request-headers": "authorization",
    }

    async with rest.options("/api/v1/api_keys/1", headers=asked) as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "http://page.example"
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers


async def test_events_come_one_by_one(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    told = asyncio.Event()
    left = asyncio.Event()

    async def events(request: event_service_pb2.StreamEventsRequest, context: Context) -> None:
        event = event_pb2.Event(cursor="2", type="line\nbreak")
        try:
            await context.write(event_service_pb2.StreamEventsResponse(cursor=request.after_cursor))
            await told.wait()
            await context.write(event_service_pb2.StreamEventsResponse(events=[event]))
            await asyncio.Event().wait()
        finally:
            left.set()

    stand_in.streams["StreamEvents"] = events

    async with asyncio.timeout(30):
        answer = await rest.get("/api/v1/events/stream?after_cursor=1&event_types=a&event_types=b&heartbeat=5s")
        first = await answer.content.readuntil(b"\n\n")
        told.set()
        second = await answer.content.readuntil(b"\n\n")
        answer.close()
        await left.wait()

    assert answer.headers["content-type"] == "text/event-stream"
    assert first == b'data: {"events":[],"cursor":"1"}\n\n'
    assert b'"type":"line\\nbreak"' in second


async def test_stream_that_fails_at_once_is_an_error(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    async def refuse(_request: Message, _context: Context) -> None:
        raise TooSlow("read faster", cursor="1")

    stand_in.streams["StreamEvents"] = refuse

    async with rest.get("/api/v1/events/stream") as answer:
        body = await answer.json()

    assert (answer.status, body["error"]["reason"]) == (429, "SUBSCRIBER_TOO_SLOW")
    assert "x-error-body" not in answer.headers


async def test_stream_that_fails_later_ends(
    rest: aiohttp.ClientSession, native: grpc.aio.Channel, stand_in: StandIn
) -> None:
    async def fail(_request: Message, context: Context) -> None:
        await context.write(event_service_pb2.StreamEventsResponse(cursor="1"))
        raise TooSlow("read faster", cursor="1")

    stand_in.streams["StreamEvents"] = fail

    async with rest.get("/api/v1/events/stream") as answer:
        body = await answer.text()
    request = event_service_pb2.StreamEventsRequest()
    call = event_service_pb2_grpc.EventServiceStub(native).StreamEvents(request, metadata=METADATA)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [response async for response in call]

    assert body == 'data: {"events":[],"cursor":"1"}\n\n'
    assert refusal(caught.value).reason == "SUBSCRIBER_TOO_SLOW"


async def test_unreadable_text_is_the_clients_mistake(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    stand_in.answers["ListApiKeys"] = empty

    async with rest.get("/api/v1/api_keys?page_token=%ff") as answer:
        assert (answer.status, (await answer.json())["error"]["reason"]) == (400, "MALFORMED_REQUEST")
