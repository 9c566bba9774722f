"""What Envoy and its Lua filter make of an api server's answers."""

import json
from collections.abc import Callable

import aiohttp
import pytest
from commonservices.v1 import (
    api_key_pb2,
    api_key_service_pb2,
    message_pb2,
    message_service_pb2,
    status_service_pb2,
    webhook_delivery_service_pb2,
)
from google.api import httpbody_pb2
from google.protobuf.message import Message

from server import errors
from server.rpc import answers
from tests.rest.stand_in import Answer, Context, StandIn, empty

INTERNAL_FIELDS = {
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "grpc-accept-encoding",
    "x-error-body",
    "x-http-code",
    "x-envoy-upstream-service-time",
}


class KeyGone(errors.NotFound):
    """A failure with metadata."""

    reason = "API_KEY_NOT_FOUND"


def answering(response: Message) -> Answer:
    """Always this."""

    async def answer(_request: Message, _context: Context) -> Message:
        return response

    return answer


def failing(error: Callable[[], Exception], *, after_headers: bool = False) -> Answer:
    """Always that."""

    async def answer(_request: Message, context: Context) -> Message:
        if after_headers:
            await answers.replayed(context)
        raise error()

    return answer


async def test_list_is_the_bare_array_and_names_the_next_page(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    async def page(_request: Message, context: Context) -> Message:
        await answers.paged(context, _request, "next_-1")
        return api_key_service_pb2.ListApiKeysResponse(
            api_keys=[api_key_pb2.ApiKey(id=1, token_prefix="]")], next_page_token="next_-1"
        )

    stand_in.answers["ListApiKeys"] = page

    async with rest.get("/api/v1/api_keys?page_size=1") as answer:
        body = await answer.text()

    assert answer.status == 200
    assert body == '[{"id":1,"bearer_id":0,"token_prefix":"]"}]'
    assert answer.headers["x-next-page-token"] == "next_-1"
    assert answer.headers["link"] == '</api/v1/api_keys?page_size=1&page_token=next_-1>; rel="next"'
    assert not INTERNAL_FIELDS & {name.lower() for name in answer.headers}


async def test_link_of_a_list_that_was_asked_by_body_is_whole(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    async def page(request: Message, context: Context) -> Message:
        await answers.paged(context, request, "next_-1")
        return message_service_pb2.ListMessagesResponse(next_page_token="next_-1")

    stand_in.answers["ListMessages"] = page

    async with rest.get("/api/v1/messages", json={"from": "+12065550100", "to": "+12065550190"}) as answer:
        link = answer.headers["link"]

    assert link == '</api/v1/messages?from=%2B12065550100&to=%2B12065550190&page_token=next_-1>; rel="next"'


async def test_empty_list_is_an_empty_array(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    stand_in.answers["ListApiKeys"] = answering(api_key_service_pb2.ListApiKeysResponse())

    async with rest.get("/api/v1/api_keys") as answer:
        assert await answer.read() == b"[]"


async def test_items_that_look_like_the_end_of_the_list_are_kept(
    rest: aiohttp.ClientSession, stand_in: StandIn
) -> None:
    tricky = '[{"id":1}],"next_page_token":""}'
    messages = [message_pb2.Message(message_body=tricky, media_urls=[tricky, '"]}'])] * 2
    stand_in.answers["ListMessages"] = answering(message_service_pb2.ListMessagesResponse(messages=messages))

    async with rest.get("/api/v1/messages?from=+12065550100&to=+12065550190") as answer:
        items = await answer.json()

    assert [item["message_body"] for item in items] == [tricky, tricky]
    assert items[0]["media_urls"] == [tricky, '"]}']


async def test_longest_page_arrives_whole(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    longest = message_pb2.Message(message_body="ü" * 1600, media_urls=["https://media.example/" + "x" * 2000] * 10)
    stand_in.answers["ListMessages"] = answering(message_service_pb2.ListMessagesResponse(messages=[longest] * 1000))

    async with rest.get("/api/v1/messages?from=+12065550100&to=+12065550190&page_size=1000") as answer:
        items = await answer.json()

    assert len(items) == 1000
    assert all(item["message_body"] == longest.message_body for item in items)


async def test_answers_that_are_no_lists_are_left_alone(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    stand_in.answers["GetMessage"] = answering(message_pb2.Message(media_urls=["a", "b"]))
    stand_in.answers["RecoverWebhookDeliveries"] = answering(
        webhook_delivery_service_pb2.RecoverWebhookDeliveriesResponse(recovered_count=2)
    )

    async with rest.get("/api/v1/messages/1") as answer:
        assert (await answer.json())["media_urls"] == ["a", "b"]
    async with rest.post("/api/v1/webhook_deliveries/recover", json={}) as answer:
        assert await answer.json() == {"recovered_count": 2}


async def test_create_is_201_and_delete_answers_an_empty_object(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    async def create(request: Message, context: Context) -> Message:
        await answers.replayed(context)
        return api_key_pb2.ApiKey(id=7)

    stand_in.answers |= {"CreateApiKey": create, "DeleteApiKey": empty}

    async with rest.post("/api/v1/api_keys", json={}) as answer:
        assert (answer.status, (await answer.json())["id"]) == (201, 7)
        assert answer.headers["idempotent-replayed"] == "true"
        assert not INTERNAL_FIELDS & {name.lower() for name in answer.headers}
    async with rest.delete("/api/v1/api_keys/7") as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")


@pytest.mark.parametrize("after_headers", [False, True])
async def test_error_has_the_servers_own_body(
    rest: aiohttp.ClientSession, stand_in: StandIn, after_headers: bool
) -> None:
    gone = failing(lambda: KeyGone('no key "7" – ☃', api_key_id="7"), after_headers=after_headers)
    stand_in.answers["CreateApiKey"] = gone

    async with rest.post("/api/v1/api_keys", json={}) as answer:
        body = await answer.json()

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert not INTERNAL_FIELDS & {name.lower() for name in answer.headers}
    assert body == {
        "error": {
            "code": 404,
            "status": "NOT_FOUND",
            "message": 'no key "7" – ☃',
            "reason": "API_KEY_NOT_FOUND",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_NOT_FOUND",
                    "domain": "commonservices",
                    "metadata": {"api_key_id": "7"},
                }
            ],
        }
    }


async def test_error_naming_50_bad_fields_arrives_whole(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    bad = [errors.FieldViolation(f"twilio_numbers[{n}].phone_number", "is not a number " * 5) for n in range(50)]
    stand_in.answers["CreateApiKey"] = failing(lambda: errors.InvalidArgument(bad))

    async with rest.post("/api/v1/api_keys", json={}) as answer:
        details = (await answer.json())["error"]["details"]

    assert answer.status == 400
    assert len(details[1]["field_violations"]) == 50


async def test_fault_tells_nothing(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    stand_in.answers["CreateApiKey"] = failing(lambda: RuntimeError("a secret"))

    async with rest.post("/api/v1/api_keys", json={}) as answer:
        body = await answer.text()

    assert (answer.status, json.loads(body)["error"]["reason"]) == (500, "INTERNAL")
    assert "secret" not in body


async def test_callback_reaches_the_server_byte_for_byte(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    sent = b"Body=a%20b+c&Empty=&\xff\x00"
    query = "message_uuid=1&AddedByTwilio=x%20y+z"
    seen: dict[str, str | bytes] = {}

    async def reply(request: httpbody_pb2.HttpBody, context: Context) -> Message:
        seen.update(context.invocation_metadata() or ())
        echo: Message = httpbody_pb2.HttpBody(content_type="text/xml", data=b"<Echo>" + request.data + b"</Echo>")
        return echo

    stand_in.answers["UpdateMessageStatus"] = reply
    path = f"/api/v1/twilio_requests/webhook_message_updates?{query}"
    headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": "sig"}

    async with rest.post(path, data=sent, headers=headers) as answer:
        body = await answer.read()

    assert body == b"<Echo>" + sent + b"</Echo>"
    assert answer.headers["content-type"] == "text/xml"
    assert seen["x-envoy-original-path"] == path
    assert seen["x-twilio-signature"] == "sig"


async def test_forged_header_fields_are_harmless(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    seen: dict[str, str | bytes] = {}

    async def status(_request: Message, context: Context) -> Message:
        seen.update(context.invocation_metadata() or ())
        return status_service_pb2.Status(message="OK")

    stand_in.answers["GetStatus"] = status
    forged = {
        "x-envoy-original-path": "/forged",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-error-body": "forged",
        "x-http-code": "500",
        "x-client-ip": "192.0.2.1",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-proto": "https",
        "x-request-id": "forged",
    }

    async with rest.get("/api/v1/status", headers=forged) as answer:
        assert (answer.status, await answer.json()) == (200, {"message": "OK"})

    assert seen["x-envoy-original-path"] == "/api/v1/status"
    assert seen["x-client-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-request-id"] == answer.headers["x-request-id"] != "forged"
    assert answer.headers["server"] == "common-services"


async def test_plus_in_a_query_is_a_plus(rest: aiohttp.ClientSession, stand_in: StandIn) -> None:
    seen: list[tuple[str, str]] = []

    async def listed(request: message_service_pb2.ListMessagesRequest, _context: Context) -> Message:
        seen.append((getattr(request, "from"), request.to))
        return message_service_pb2.ListMessagesResponse()

    stand_in.answers["ListMessages"] = listed

    await rest.get("/api/v1/messages?from=+12065550100&to=%2B12065550190")
    await rest.get("/api/v1/messages", json={"from": "+12065550100", "to": "+12065550190"})
    await rest.get("/api/v1/messages?to=+12065550190", json={"from": "+12065550100"})

    assert seen == [("+12065550100", "+12065550190")] * 3
