"""The sandbox's REST API of Zoom, asked as the vendor documents it."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from tests.providers import zoom_account as zoom
from tests.providers.servers import Receiver, Sandbox, running_sandbox
from tests.providers.zoom_account import SESSION_KEY, act, bearer, join, next_names, path_of, request, sessions

END = {"action": "end"}


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(zoom=zoom.account(f"{receiver.base_url}/zoom")) as made:
        yield made


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def listed(sandbox: Sandbox, **filters: str) -> Any:
    query = "&".join(f"{name}={value}" for name, value in ({"from": today(), "to": today()} | filters).items())
    status, body = await request(sandbox, "GET", f"/v2/videosdk/sessions?{query}")
    assert status == 200, body
    return body


async def test_live_session_is_ended_and_the_account_is_told(sandbox: Sandbox, receiver: Receiver) -> None:
    session = (await join(sandbox))["session"]
    await join(sandbox)

    status, body = await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)

    assert (status, body) == (204, None)
    assert await next_names(receiver, 6) == ["started", "user_joined", "user_joined", "user_left", "user_left", "ended"]
    (ended,) = await sessions(sandbox)
    assert ended["end_time"] is not None


async def test_session_that_has_ended_or_never_was_does_not_exist(sandbox: Sandbox) -> None:
    session = (await join(sandbox))["session"]
    await act(sandbox, "leave")

    ended = await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)
    unknown = await request(sandbox, "PUT", path_of("nobody/has+this==", "/status"), json=END)

    assert ended == (404, {"code": 3001, "message": f"Session does not exist: {session['id']}."})
    assert unknown == (404, {"code": 3001, "message": "Session does not exist: nobody/has+this==."})


async def test_id_that_begins_with_a_slash_is_found_only_when_encoded_twice(sandbox: Sandbox) -> None:
    session_id = (await join(sandbox))["session"]["id"]
    once = quote(session_id, safe="")

    found, _ = await request(sandbox, "GET", f"/v2/videosdk/sessions/{quote(once, safe='')}")
    lost, body = await request(sandbox, "GET", f"/v2/videosdk/sessions/{once}")

    assert (found, lost) == (200, 404)
    assert body == {"code": 3001, "message": f"Session does not exist: {session_id[1:]}."}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"json": {"action": "start"}}, "Invalid field: action."),
        ({"json": {}}, "Invalid field: action."),
        ({"json": []}, "Invalid field: action."),
        ({"data": b"end"}, "Request Body should be a valid JSON object."),
    ],
)
async def test_status_that_is_no_end_is_refused(sandbox: Sandbox, sent: dict[str, Any], message: str) -> None:
    session = (await join(sandbox))["session"]

    answer = await request(sandbox, "PUT", path_of(session["id"], "/status"), **sent)

    assert answer == (400, {"code": 300, "message": message})
    assert (await sessions(sandbox))[0]["end_time"] is None


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Authorization": ""}, "Invalid access token."),
        ({"Authorization": "Bearer nonsense"}, "Invalid access token."),
        ({"Authorization": bearer()["Authorization"].replace("Bearer", "Basic")}, "Invalid access token."),
        (bearer(secret="another-secret-of-32-bytes-or-more"), "Invalid access token."),
        (bearer(iss="another"), "Invalid access token."),
        (bearer(exp="soon"), "Invalid access token."),
        (bearer(exp=int(time.time())), "Access token is expired."),
    ],
)
async def test_request_needs_a_token_of_the_api_key(sandbox: Sandbox, headers: dict[str, str], message: str) -> None:
    session = (await join(sandbox))["session"]

    answer = await request(sandbox, "PUT", path_of(session["id"], "/status"), headers=headers, json=END)

    assert answer == (401, {"code": 124, "message": message})
    assert (await sessions(sandbox))[0]["end_time"] is None


async def test_token_of_a_session_is_none_of_the_api(sandbox: Sandbox) -> None:
    status, _ = await request(
        sandbox, "GET", "/v2/videosdk/sessions", headers={"Authorization": f"Bearer {zoom.token(host=True)}"}
    )

    assert status == 401


async def test_sessions_are_live_or_past(sandbox: Sandbox) -> None:
    past = (await join(sandbox))["session"]
    await act(sandbox, "leave")
    live = (await join(sandbox, tpc="Geometry", session_key=None))["session"]
    await act(sandbox, "join", phone_number="+14155550123")

    page = await listed(sandbox)
    (shown,) = page.pop("sessions")
    assert page == {"from": today(), "to": today(), "page_size": 30, "next_page_token": ""}
    assert shown.pop("duration") in ("00:00:00", "00:00:01")
    assert shown == {
        "id": live["id"],
        "session_name": "Geometry",
        "start_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(live["start_time"])),
        "user_count": 2,
        "has_voip": True,
        "has_video": True,
        "has_screen_share": False,
        "has_recording": False,
        "has_pstn": True,
    }
    (ended,) = (await listed(sandbox, type="past"))["sessions"]
    assert (ended["id"], ended["session_key"]) == (past["id"], SESSION_KEY)
    assert ended["end_time"] >= ended["start_time"]


async def test_list_is_filtered(sandbox: Sandbox) -> None:
    algebra = (await join(sandbox))["session"]["id"]
    geometry = (await join(sandbox, tpc="Geometry", session_key="another"))["session"]["id"]

    async def found(**filters: str) -> list[str]:
        return [session["id"] for session in (await listed(sandbox, **filters))["sessions"]]

    assert await found(type="live") == [geometry, algebra]
    assert await found(session_key=SESSION_KEY) == [algebra]
    assert await found(session_name="geometry") == [geometry]
    assert await found(**{"from": "2020-01-01", "to": "2020-01-31"}) == []


async def test_pages_follow_each_other_to_the_end(sandbox: Sandbox) -> None:
    made = [(await join(sandbox, tpc=f"Lesson {number}"))["session"]["id"] for number in range(5)]
    pages: list[list[str]] = []
    token: dict[str, str] = {}
    while True:
        page = await listed(sandbox, page_size="2", **token)
        pages.append([session["id"] for session in page["sessions"]])
        if not page["next_page_token"]:
            break
        token = {"next_page_token": page["next_page_token"]}

    made.reverse()
    assert pages == [made[:2], made[2:4], made[4:]]


async def test_session_is_shown_as_in_the_list(sandbox: Sandbox) -> None:
    session = (await join(sandbox))["session"]
    await act(sandbox, "leave")
    (listed_session,) = (await listed(sandbox, type="past"))["sessions"]

    as_it_is = await request(sandbox, "GET", path_of(session["id"]))
    as_past = await request(sandbox, "GET", path_of(session["id"], "?type=past"))
    as_live = await request(sandbox, "GET", path_of(session["id"], "?type=live"))

    assert as_it_is == as_past == (200, listed_session)
    assert as_live[0] == 404


async def test_users_are_listed_once_for_each_stay(sandbox: Sandbox) -> None:
    first = (await join(sandbox, name="Ada", host=True))["user"]
    session = (await join(sandbox, name="Bob"))["session"]
    await act(sandbox, "leave", user="Ada")
    again = (await join(sandbox, name="Ada", host=True))["user"]

    status, page = await request(sandbox, "GET", path_of(session["id"], "/users?page_size=2"))
    _, rest = await request(
        sandbox,
        "GET",
        path_of(session["id"], f"/users?page_size=2&next_page_token={page['next_page_token']}"),
    )

    assert status == 200
    assert [user["name"] for user in page["users"] + rest["users"]] == ["Ada", "Bob", "Ada"]
    ada, bob = page["users"]
    assert (ada["id"], ada["user_key"], "leave_time" in ada) == (first["id"], "a" * 32, True)
    assert set(bob) == {"id", "name", "device", "join_time", "user_key", "participant_uuid"}
    assert (rest["users"][0]["id"], rest["next_page_token"]) == (again["id"], "")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/videosdk/sessions", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=2026-01-01", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=yesterday&to=today", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=2026-01-01&to=2026-01-31&type=future", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=2026-01-01&to=2026-01-31&page_size=0", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=2026-01-01&to=2026-01-31&page_size=301", 400, 300),
        ("GET", "/v2/videosdk/sessions?from=2026-01-01&to=2026-01-31&next_page_token=nonsense", 400, 300),
        ("GET", "/v2/videosdk/sessions/nobody", 404, 3001),
        ("GET", "/v2/videosdk/sessions/nobody/users", 404, 3001),
        ("GET", "/v2/videosdk/sessions/nobody/recordings", 404, 3001),
        ("GET", "/v2/videosdk/nothing", 404, 2300),
        ("POST", "/v2/videosdk/sessions/nobody/status", 405, 2300),
    ],
)
async def test_requests_are_refused_in_zooms_form(
    sandbox: Sandbox, method: str, path: str, status: int, code: int
) -> None:
    answered, body = await request(sandbox, method, path)

    assert (answered, body["code"], set(body)) == (status, code, {"code", "message"})


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [("429", 429, "2"), ("503", 503, "2"), ("500", 500, "2"), ("502", 502, None), ("504", 504, None)],
)
async def test_refusing_answers_end_nothing(
    sandbox: Sandbox, answer: str, status: int, retry_after: str | None
) -> None:
    session = (await join(sandbox))["session"]
    await sandbox.misbehave(answer=answer, retry_after_ms=1500, next_requests=1)

    async with sandbox.http.request(
        "PUT", sandbox.base_url + f"/v2/videosdk/sessions/{session['id']}/status", headers=bearer()
    ) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == retry_after

    assert (await sessions(sandbox))[0]["end_time"] is None


@pytest.mark.parametrize(
    ("answer", "status"), [("500-taken", 500), ("502-taken", 502), ("504-taken", 504), ("garbled", 200)]
)
async def test_wrong_answers_end_it_all_the_same(sandbox: Sandbox, answer: str, status: int) -> None:
    session = (await join(sandbox))["session"]
    await sandbox.misbehave(answer=answer, next_requests=1)

    answered, _ = await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)

    assert answered == status
    assert (await sessions(sandbox))[0]["end_time"] is not None


async def test_lost_answer_ends_it_all_the_same(sandbox: Sandbox) -> None:
    session = (await join(sandbox))["session"]
    await sandbox.misbehave(answer="lost-response", next_requests=1)

    # aiohttp asks again by itself where the connection is closed without an answer.
    status, _ = await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)

    assert status == 404
    assert [asked["status"] for asked in (await sandbox.control("GET", "requests"))["requests"]] == [None, 404]
    assert (await sessions(sandbox))[0]["end_time"] is not None


async def test_answers_come_late_when_told(sandbox: Sandbox) -> None:
    session = (await join(sandbox))["session"]
    await sandbox.misbehave(delay_ms=100)
    begun = time.monotonic()

    status, _ = await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)

    assert status == 204
    assert time.monotonic() - begun >= 0.1


async def test_triggers_in_a_sessions_name_count_the_tries_to_end_it(sandbox: Sandbox) -> None:
    name = "[sandbox:429x2][sandbox:500] Algebra"
    ids = [(await join(sandbox, tpc=f"{name} {number}"))["session"]["id"] for number in (1, 2)]

    answers = [(await request(sandbox, "PUT", path_of(each, "/status"), json=END))[0] for _ in range(4) for each in ids]

    assert answers == [429, 429, 429, 429, 500, 500, 204, 204]


async def test_requests_are_recorded_beside_the_other_vendors(sandbox: Sandbox) -> None:
    session = (await join(sandbox))["session"]
    await request(sandbox, "PUT", path_of(session["id"], "/status"), json=END)
    await sandbox.create()

    asked = (await sandbox.control("GET", "requests"))["requests"]

    assert [(each["method"], each["status"]) for each in asked] == [("PUT", 204), ("POST", 201)]
    assert asked[0]["form"] == [["action", "end"]]
