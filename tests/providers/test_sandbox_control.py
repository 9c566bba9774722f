from typing import Any

import pytest

from tests.providers.servers import MESSAGES, Receiver, Sandbox


async def test_health_is_ready(sandbox: Sandbox) -> None:
    assert await sandbox.control("GET", "health") == {"status": "ready"}


async def test_messages_are_shown_as_the_phones_got_them(sandbox: Sandbox, receiver: Receiver) -> None:
    url = f"{receiver.base_url}/cb"
    await sandbox.create(To="+14155550001", Body="first", StatusCallback=url)
    await sandbox.create(To="+14155550002", Body="second", From="+15125550100")
    await receiver.next_statuses(2)

    assert [taken["body"] for taken in await sandbox.taken()] == ["first", "second"]
    (taken,) = await sandbox.taken(to="+14155550001", status="delivered")
    assert (taken["body"], taken["from"], taken["status_callback"]) == ("first", "+12065550100", url)
    (taken,) = (await sandbox.control("GET", "messages?from=+15125550100"))["messages"]
    assert taken["to"] == "+14155550002"
    assert await sandbox.taken(to="+14155550003") == []


async def test_requests_are_kept_as_they_were_made(sandbox: Sandbox) -> None:
    await sandbox.create(MediaUrl=["https://media.example/1.jpg", "https://media.example/2.jpg"])
    await sandbox.rest("GET", MESSAGES, params={"To": "+14155550123"})

    created, listed = (await sandbox.control("GET", "requests"))["requests"]
    assert (created["method"], created["path"], created["status"]) == ("POST", MESSAGES, 201)
    assert [value for name, value in created["form"] if name == "MediaUrl"] == [
        "https://media.example/1.jpg",
        "https://media.example/2.jpg",
    ]
    assert listed["query"] == [["To", "+14155550123"]]
    only = await sandbox.control("GET", "requests", params={"method": "POST", "path": "Messages.json"})
    assert only["requests"] == [created]


async def test_control_requests_are_not_among_the_requests(sandbox: Sandbox) -> None:
    await sandbox.taken()

    assert await sandbox.control("GET", "requests") == {"requests": []}


async def test_misbehaviour_is_shown_as_it_was_told(sandbox: Sandbox) -> None:
    told = {
        "answer": "429",
        "retry_after_ms": 1500,
        "delay_ms": 20,
        "callbacks": "missing",
        "delivery_failure": {"status": "failed", "error_code": 30007},
        "next_requests": 4,
    }

    await sandbox.misbehave(**told)

    assert await sandbox.control("GET", "misbehaviour") == told
    await sandbox.control("DELETE", "misbehaviour")
    assert await sandbox.control("GET", "misbehaviour") == {
        "answer": None,
        "retry_after_ms": None,
        "delay_ms": 0,
        "callbacks": "in-order",
        "delivery_failure": None,
        "next_requests": None,
    }


async def test_every_bad_field_is_named_at_once(sandbox: Sandbox) -> None:
    bad: dict[str, Any] = {
        "answer": "418",
        "retry_after_ms": -1,
        "delay_ms": "soon",
        "callbacks": ["missing"],
        "delivery_failure": {"status": "lost"},
        "next_requests": True,
        "colour": "red",
    }

    refused = await sandbox.control("PUT", "misbehaviour", json=bad, expect=400)

    assert sorted(error["field"] for error in refused["errors"]) == sorted(bad)
    assert all(error["field"] in refused["message"] for error in refused["errors"])
    assert (await sandbox.control("GET", "misbehaviour"))["delay_ms"] == 0


@pytest.mark.parametrize(
    ("number", "body", "fields"),
    [
        ("+1415", {"opted_out": "yes", "delivery_error": 7, "line_type": "red"}, 4),
        ("+14155550123", {"opted_out": 1}, 1),
        ("+14155550123", {"delivery_error": True}, 1),
    ],
)
async def test_impossible_handset_is_refused(
    sandbox: Sandbox, number: str, body: dict[str, object], fields: int
) -> None:
    refused = await sandbox.control("PUT", f"handsets/{number}", json=body, expect=400)

    assert len(refused["errors"]) == fields
    assert await sandbox.control("GET", "handsets") == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"'])
async def test_body_that_is_no_object_is_refused(sandbox: Sandbox, body: bytes) -> None:
    refused = await sandbox.control("PUT", "misbehaviour", data=body, expect=400)

    assert refused["message"].startswith("the body")


async def test_handset_is_special_until_it_is_forgotten(sandbox: Sandbox) -> None:
    special = {"opted_out": True, "delivery_error": 30005, "line_type": "landline"}

    await sandbox.control("PUT", "handsets/+14155550123", json=special)
    assert await sandbox.control("GET", "handsets") == {"+14155550123": special}

    await sandbox.control("DELETE", "handsets/+14155550123")
    assert await sandbox.control("GET", "handsets") == {}


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "nothing", 404), ("PATCH", "misbehaviour", 405)])
async def test_unknown_control_path_or_method_says_so(sandbox: Sandbox, method: str, path: str, status: int) -> None:
    refused = await sandbox.control(method, path, expect=status)

    assert f"/sandbox/{path}" in refused["message"]


async def test_reset_makes_it_the_first_day(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.control("PUT", "handsets/+14155550999", json={"opted_out": True})
    await sandbox.create(StatusCallback=f"{receiver.base_url}/cb", Body="[sandbox:503]")
    await sandbox.misbehave(answer="503")

    await sandbox.control("POST", "reset")

    assert await sandbox.taken() == []
    assert await sandbox.control("GET", "handsets") == {}
    assert (await sandbox.create())[0] == 201
    assert (await sandbox.create(Body="[sandbox:503]"))[0] == 503
