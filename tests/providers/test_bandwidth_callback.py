import json
import sys
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from server.providers.bandwidth.callback import BandwidthEventsReader
from server.providers.ports import (
    CallbackMalformed,
    CredentialsMissing,
    InboundMedia,
    InboundMessage,
    MessageCallback,
    MessageEvents,
    MessageReport,
    MessageStatus,
    ProviderError,
    SignatureInvalid,
    SignedRequest,
)

MESSAGE_UUID = UUID("0198c8a4-2b1c-7000-8000-000000000001")
READER = BandwidthEventsReader(username="callbacks", password="pass:wörd")


def basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


AUTHORIZED = {"Authorization": basic("callbacks", "pass:wörd"), "Content-Type": "application/json; charset=utf-8"}


def read_all(body: object, headers: dict[str, str] | None = None) -> MessageEvents:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = "https://api.example/webhooks/bandwidth/messages_updates"
    return READER.read(SignedRequest(url=url, body=data, headers=AUTHORIZED if headers is None else headers))


def read(body: object, headers: dict[str, str] | None = None) -> Sequence[MessageCallback | InboundMessage]:
    found = read_all(body, headers)
    assert found.faults == []
    return found.events


def outbound(event_type: str = "message-delivered", **over: Any) -> dict[str, Any]:
    """An event of one of our messages in the shape of Bandwidth's reference, whose texts are empty."""
    return {
        "time": "2020-06-25T18:42:36.979Z",
        "type": event_type,
        "to": "+15554443333",
        "description": "ok",
        "message": {
            "id": "1593110555875xo7watq5px6rbe5d",
            "owner": "+15552221111",
            "applicationId": "cfd4fb83-7531-4acc-b471-42d0bb76a65c",
            "time": "2020-06-25T18:42:35.876Z",
            "segmentCount": 1,
            "direction": "out",
            "to": ["+15554443333"],
            "from": "+15552221111",
            "text": "",
            "media": [],
            "tag": str(MESSAGE_UUID),
        },
    } | over


def received(**message: Any) -> dict[str, Any]:
    """An event of a message to one of our numbers."""
    return {
        "type": "message-received",
        "time": "2016-09-14T18:20:16Z",
        "description": "Incoming message received",
        "to": "+12345678902",
        "message": {
            "id": "14762070468292kw2fuqty55yp2b2",
            "time": "2016-09-14T18:20:16Z",
            "to": ["+12345678902", "+12345678903"],
            "from": "+12345678901",
            "text": "Hey, check this out!",
            "applicationId": "93de2206-9669-4e07-948d-329f4b722ee2",
            "owner": "+12345678902",
            "direction": "in",
            "segmentCount": 1,
        }
        | message,
    }


def without(event: dict[str, Any], path: str) -> dict[str, Any]:
    *parents, name = path.split(".")
    holder = event
    for parent in parents:
        holder = holder[parent]
    del holder[name]
    return event


@pytest.mark.parametrize(
    ("event_type", "internal_status", "rank"),
    [
        ("message-sending", MessageStatus.SENDING, 3),
        ("message-sent", MessageStatus.SENT, 4),
        ("message-delivered", MessageStatus.DELIVERED, 5),
        ("message-read", MessageStatus.DELIVERED, 6),
        ("message-thrown", MessageStatus.PROCESSING, 0),
    ],
)
def test_events_of_our_messages_name_them_by_their_tag(
    event_type: str, internal_status: MessageStatus, rank: int
) -> None:
    report = MessageReport("1593110555875xo7watq5px6rbe5d", event_type, internal_status, rank)

    body = json.dumps(outbound(event_type), separators=(",", ":"))
    assert read([outbound(event_type)]) == [MessageCallback(report, MESSAGE_UUID, body)]


@pytest.mark.parametrize("wrapped", [False, True])
def test_each_event_is_kept_alone_and_can_be(wrapped: bool) -> None:
    events = [outbound(), outbound("message-sent", description="a\0b \ud83d ü"), outbound(more=[1.5, None])]

    callbacks = read({"_json": events, "of": "Rails"} if wrapped else events)

    bodies = [callback.body for callback in callbacks if isinstance(callback, MessageCallback)]
    assert [json.loads(body) for body in bodies] == events
    assert all(body.isascii() and body.isprintable() for body in bodies)


def test_event_is_read_and_kept_at_whatever_depth_or_refused() -> None:
    refused: set[str] = set()
    for depth in range(1, sys.getrecursionlimit()):
        body = b"[" + json.dumps(outbound()).encode()[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}]"
        try:
            refused.update(read_all(body).faults)
        except CallbackMalformed as error:
            refused.add(str(error))
    assert "the body is not JSON" in refused


@pytest.mark.parametrize(("code", "opted_out"), [(4432, False), (4482, False), (4775, True), ("4775", True)])
def test_failure_carries_its_code_and_the_page_that_explains_it(code: object, opted_out: bool) -> None:
    (callback,) = read([outbound("message-failed", errorCode=code)])

    assert isinstance(callback, MessageCallback)
    assert callback.report.internal_status is MessageStatus.FAILED
    page = "https://dev.bandwidth.com/docs/messaging/errors"
    assert callback.report.error == ProviderError(str(code), page, recipient_opted_out=opted_out)


@pytest.mark.parametrize("tag", [None, "", "v2 lab", 7])
def test_tag_of_somebody_else_names_no_message_of_ours(tag: object) -> None:
    event = outbound()
    event["message"]["tag"] = tag

    (callback,) = read([event])

    assert isinstance(callback, MessageCallback)
    assert callback.message_uuid is None


def test_message_to_a_number_is_for_the_number_the_event_names() -> None:
    folder = "https://messaging.bandwidth.com/api/v2/users/12345/media/14762070468292kw2fuqty55yp2b2"
    media = [f"{folder}/0/bw.png", f"{folder}/1/smil.xml", f"{folder}/2/Layout.SMIL", f"{folder}/3/file"]

    assert read([received(media=media)]) == [
        InboundMessage(
            message_sid="14762070468292kw2fuqty55yp2b2",
            sender_number="+12345678901",
            receiver_number="+12345678902",
            message_body="Hey, check this out!",
            media=(
                InboundMedia(f"{folder}/0/bw.png", "image/png"),
                InboundMedia(f"{folder}/3/file", "application/octet-stream"),
            ),
            keyword=None,
        )
    ]


def test_message_is_not_lost_for_a_url_that_is_none() -> None:
    (message,) = read([received(media=["https://[::1/bw.png"])])

    assert isinstance(message, InboundMessage)
    assert message.message_body == "Hey, check this out!"
    assert message.media == (InboundMedia("https://[::1/bw.png", "application/octet-stream"),)


@pytest.mark.parametrize("text", [None, ""])
def test_message_of_media_alone_has_an_empty_text(text: str | None) -> None:
    (message,) = read([received(text=text, media=None)])

    assert isinstance(message, InboundMessage)
    assert (message.message_body, message.media) == ("", ())


def test_text_keeps_all_that_a_row_can_hold() -> None:
    (message,) = read(json.dumps([received(text="a\0b\ud83d c 😀")]).encode())

    assert isinstance(message, InboundMessage)
    assert message.message_body == "a\ufffdb\ufffd c 😀"


@given(
    st.lists(st.sampled_from(["message-sent", "message-received", "suggestion-response"]), max_size=6), st.booleans()
)
def test_events_are_told_in_order_bare_or_wrapped(types: list[str], wrapped: bool) -> None:
    events = [received() | {"type": t} if t != "message-sent" else outbound(t) for t in types]

    told = read({"_json": events, "bandwidth": {}} if wrapped else events)

    kinds = {"message-sent": MessageCallback, "message-received": InboundMessage}
    assert [type(event) for event in told] == [kinds[t] for t in types if t in kinds]


def test_unknown_events_are_skipped_and_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        assert read([{"type": "suggestion-response", "message": {"direction": "in"}}, {"type": "poll"}]) == []

    assert [(line["event"], line["type"]) for line in logs] == [
        ("bandwidth.event_skipped", "suggestion-response"),
        ("bandwidth.event_skipped", "poll"),
    ]


def test_without_credentials_they_are_asked_for_even_of_an_empty_body() -> None:
    with pytest.raises(CredentialsMissing):
        read(b"", headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "authorization",
    [
        basic("callbacks", "another"),
        basic("another", "pass:wörd"),
        basic("callbacks:pass", "wörd!"),
        "Bearer " + basic("callbacks", "pass:wörd").partition(" ")[2],
        "Basic",
        "Basic ====",
        "Basic ü",
        "nonsense",
    ],
)
def test_other_credentials_are_refused_before_the_body_is_read(authorization: str) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        read(b"nonsense", headers={"authorization": authorization})

    assert not isinstance(refused.value, CredentialsMissing)


@pytest.mark.parametrize("scheme", ["basic", "BASIC"])
def test_scheme_and_header_are_read_in_any_case(scheme: str) -> None:
    authorization = AUTHORIZED["Authorization"].replace("Basic", scheme)

    assert len(read([outbound()], headers={"AUTHORIZATION": authorization})) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"7", "the body is neither a JSON array nor an object with one as _json"),
        (b'{"_json": {}}', "the body is neither a JSON array nor an object with one as _json"),
    ],
)
def test_body_that_has_no_events_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(CallbackMalformed) as malformed:
        read_all(body)

    assert str(malformed.value) == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([7], "event 0 is not a JSON object"),
        ([outbound(), {}], "event 1: missing: type"),
        ([outbound(type=7)], "event 0: type is not text"),
        ([outbound(message=[])], "event 0: message is not a JSON object"),
        ([without(outbound(), "message")], "event 0: message is not a JSON object"),
        ([without(outbound(), "message.id")], "event 0: missing: message.id"),
        ([outbound("message-failed", errorCode=[1])], "event 0: errorCode is no number"),
        ([outbound("message-failed", errorCode="\0")], "event 0: errorCode has characters that are no text"),
        ([received(id="a\0b")], "event 0: message.id has characters that are no text"),
        ([received(id="")], "event 0: missing: message.id"),
        ([without(received(), "message.from")], "event 0: missing: message.from"),
        ([without(received(), "to")], "event 0: missing: to"),
        ([received(text=["a"])], "event 0: message.text is not text"),
        ([received(media="https://a.example")], "event 0: message.media is not an array"),
        ([received(media=[None])], "event 0: message.media is not text"),
        ([received() | {"message": None}], "event 0: message is not a JSON object"),
    ],
)
def test_event_that_is_malformed_is_named_and_the_others_are_read(body: list[object], said: str) -> None:
    found = read_all([*body, outbound(), 7])

    assert found.faults == [said, f"event {len(body) + 1} is not a JSON object"]
    assert found.events == read([*body[:-1], outbound()])
