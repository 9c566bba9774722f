"""People in the sandbox's sessions: who is let in, and what their coming and going leads to."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers import zoom_account as zoom
from tests.providers.servers import Receiver, Sandbox, running_sandbox
from tests.providers.zoom_account import SESSION_KEY, act, join, next_event, next_names, sessions, token


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(zoom=zoom.account(f"{receiver.base_url}/zoom")) as made:
        yield made


async def test_first_join_starts_the_session(sandbox: Sandbox, receiver: Receiver) -> None:
    joined = await join(sandbox, host=True, name="Ada")

    started, came = [await next_event(receiver) for _ in range(2)]
    session, user = joined["session"], joined["user"]
    assert [told["event"] for told in joined["told"]] == ["session.started", "session.user_joined"]
    assert [(told["status"], told["failure"]) for told in joined["told"]] == [(200, None)] * 2
    assert (user["name"], user["is_host"], user["user_key"]) == ("Ada", True, "a" * 32)
    of_session = {"id": session["id"], "session_id": session["id"], "session_name": "Algebra"}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(session["start_time"]))
    assert started == {
        "event": "session.started",
        "event_ts": int(session["start_time"] * 1000),
        "payload": {
            "account_id": "SandboxZoomAccount0001",
            "object": {**of_session, "session_key": SESSION_KEY, "start_time": at},
        },
    }
    assert came["payload"]["object"] == {
        **of_session,
        "session_key": SESSION_KEY,
        "user": {
            "id": user["id"],
            "name": "Ada",
            "join_time": at,
            "user_key": "a" * 32,
            "participant_uuid": user["participant_uuid"],
        },
    }


async def test_ids_look_like_zooms_and_begin_with_a_slash(sandbox: Sandbox) -> None:
    ids = {(await join(sandbox, tpc=f"Lesson {number}"))["session"]["id"] for number in range(20)}

    assert len(ids) == 20
    assert all(len(each) == 24 and each[0] == "/" and each[5] == "+" and each.endswith("==") for each in ids)


async def test_others_join_what_has_started_whatever_the_case_of_its_name(sandbox: Sandbox, receiver: Receiver) -> None:
    first = await join(sandbox)
    second = await join(sandbox, host=True, tpc="ALGEBRA")

    assert second["session"]["id"] == first["session"]["id"]
    assert [user["name"] for user in second["session"]["users"]] == ["Participant", "Host"]
    assert await next_names(receiver, 3) == ["started", "user_joined", "user_joined"]


async def test_last_leave_ends_the_session(sandbox: Sandbox, receiver: Receiver) -> None:
    ada = await join(sandbox, host=True, name="Ada")
    await join(sandbox, name="Bob")
    await next_names(receiver, 3)

    left = await act(sandbox, "leave", user=ada["user"]["id"])
    assert left["session"]["end_time"] is None
    ended = await act(sandbox, "leave", user="Bob")

    first, second, end = [await next_event(receiver) for _ in range(3)]
    assert [event["event"] for event in (first, second, end)] == ["session.user_left"] * 2 + ["session.ended"]
    gone = first["payload"]["object"]["user"]
    assert (gone["id"], gone["leave_reason"]) == (ada["user"]["id"], "Ada left the session.")
    assert set(gone) == {"id", "name", "user_key", "participant_uuid", "leave_time", "leave_reason"}
    over = end["payload"]["object"]
    assert set(over) == {"id", "session_id", "session_name", "session_key", "start_time", "end_time"}
    assert end["event_ts"] == int(ended["session"]["end_time"] * 1000)


async def test_who_joins_what_has_ended_starts_another_session(sandbox: Sandbox) -> None:
    first = await join(sandbox)
    await act(sandbox, "leave")
    second = await join(sandbox)

    assert second["session"]["id"] != first["session"]["id"]
    assert second["user"]["id"] != first["user"]["id"]
    assert second["user"]["user_key"] == first["user"]["user_key"]


async def test_host_ends_it_for_everybody(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, host=True, name="Ada")
    await join(sandbox, name="Bob")
    await next_names(receiver, 3)

    ended = await act(sandbox, "end", session="algebra")

    events = [await next_event(receiver) for _ in range(3)]
    assert [event["event"].partition(".")[2] for event in events] == ["user_left", "user_left", "ended"]
    reasons = [event["payload"]["object"]["user"]["leave_reason"] for event in events[:2]]
    assert reasons == [f"{name} left the session.<br>Reason: Host ended the session." for name in ("Ada", "Bob")]
    assert [user["leave_time"] for user in ended["session"]["users"]] == [ended["session"]["end_time"]] * 2


async def test_who_dials_in_has_a_number_and_no_key(sandbox: Sandbox, receiver: Receiver) -> None:
    session = (await join(sandbox))["session"]
    await next_names(receiver, 2)

    joined = await act(sandbox, "join", phone_number="+14155550123", session=session["id"])

    user = (await next_event(receiver))["payload"]["object"]["user"]
    assert (user["name"], user["phone_number"]) == ("Caller", "14155550123")
    assert "user_key" not in user
    assert joined["session"]["id"] == session["id"]


async def test_session_without_a_key_has_none_anywhere(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, session_key=None, user_identity=None, user_key="c" * 36)

    started, came = [await next_event(receiver) for _ in range(2)]
    assert "session_key" not in started["payload"]["object"]
    assert came["payload"]["object"]["user"]["user_key"] == "c" * 36


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"secret": "another-secret-of-32-bytes-or-more"}, "token must be signed with the account's SDK secret"),
        ({"app_key": "another"}, "token.app_key must be the account's SDK key"),
        ({"app_key": None}, "token.app_key must be the account's SDK key"),
        ({"tpc": None}, "token.tpc must be the name of a session, 1 to 199 characters"),
        ({"tpc": ""}, "token.tpc must be the name of a session"),
        ({"tpc": "a" * 200}, "token.tpc must be the name of a session"),
        ({"tpc": 7}, "token.tpc must be the name of a session"),
        ({"role_type": 2}, "token.role_type must be 1 for a host or 0 for a participant"),
        ({"role_type": "1"}, "token.role_type must be"),
        ({"role_type": None}, "token.role_type must be"),
        ({"role_type": True}, "token.role_type must be"),
        ({"version": 2}, "token.version must be 1"),
        ({"version": None}, "token.version must be 1"),
        ({"iat": None}, "token.iat must be Unix seconds"),
        ({"exp": None}, "token.exp must be Unix seconds"),
        ({"exp": "soon"}, "token.exp must be Unix seconds"),
        ({"iat": NOW + 600, "exp": NOW + 7200}, "token.iat must not be later than now"),
        ({"iat": NOW, "exp": NOW + 1799}, "token.exp must be 1800 to 172800 seconds after iat"),
        ({"iat": NOW, "exp": NOW + 172_801}, "token.exp must be 1800 to 172800 seconds after iat"),
        ({"iat": NOW - 1801, "exp": NOW - 1}, "token.exp must not have come: the token has expired"),
        ({"user_identity": "a" * 35}, "token.user_identity must be a text of fewer than 35 characters"),
        ({"user_key": "a" * 37}, "token.user_key must be a text of at most 36 characters"),
        ({"session_key": "a" * 36}, "token.session_key must be a text of fewer than 36 characters"),
        ({"geo_regions": "US,XX"}, "token.geo_regions must be some of AU, BR"),
        ({"cloud_recording_option": 2}, "token.cloud_recording_option must be 0 or 1"),
        ({"cloud_recording_election": "1"}, "token.cloud_recording_election must be 0 or 1"),
        ({"tpc": "[sandbox:nonsense]"}, "token.tpc must not have [sandbox:nonsense], which the sandbox does not know"),
    ],
)
async def test_token_that_is_not_good_is_refused_by_name(sandbox: Sandbox, claims: dict[str, Any], said: str) -> None:
    refused = await act(sandbox, "join", expect=400, token=token(**claims))

    assert refused["message"].startswith(said)
    assert [error["field"] for error in refused["errors"]] == [said.partition(" ")[0]]
    assert await sessions(sandbox) == []


@pytest.mark.parametrize("written", ["nonsense", "a.b.c", "", 7, None])
async def test_what_is_no_token_is_refused(sandbox: Sandbox, written: object) -> None:
    refused = await act(sandbox, "join", expect=400, token=written)

    assert [error["field"] for error in refused["errors"]] == ["token"]


async def test_everything_wrong_with_a_token_is_said_at_once(sandbox: Sandbox) -> None:
    refused = await act(sandbox, "join", expect=400, token=token(app_key="another", version="1", exp=NOW))

    assert [error["field"] for error in refused["errors"]] == ["token.app_key", "token.version", "token.exp"]


@pytest.mark.parametrize(
    "claims",
    [
        {"tpc": "a" * 199},
        {"tpc": "Parents' evening – 3ème"},
        {"iat": NOW - 3600, "exp": NOW - 3600 + 172_800},
        {"iat": NOW, "exp": NOW + 1800},
        {"user_identity": "a" * 34, "session_key": "a" * 35},
        {"geo_regions": "US,IN", "cloud_recording_option": 1, "cloud_recording_election": 0, "something": "else"},
    ],
)
async def test_token_at_its_bounds_is_good(sandbox: Sandbox, claims: dict[str, Any]) -> None:
    assert len((await join(sandbox, **claims))["told"]) == 2


async def test_token_is_for_the_session_that_is_joined(sandbox: Sandbox) -> None:
    await act(sandbox, "join", token=token(), session_name="algebra")

    refused = await act(sandbox, "join", expect=400, token=token(), session_name="Geometry")

    assert refused["message"] == "token.tpc must be the name of the session that is joined"


@pytest.mark.parametrize("session_key", [None, "another"])
async def test_session_has_one_key(sandbox: Sandbox, session_key: str | None) -> None:
    await join(sandbox)

    refused = await act(sandbox, "join", expect=400, token=token(session_key=session_key))

    assert refused["message"] == "token.session_key must be that of the others in the session"


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("leave", {}, "user must be one of those who are in a session: {ids}"),
        ("leave", {"user": "Cid"}, "user must be one of those who are in a session: {ids}"),
        ("end", {}, "session must be the id or the name of a live session: 'Algebra', 'Geometry'"),
        ("end", {"session": "Physics"}, "session must be the id or the name of a live session: 'Algebra', 'Geometry'"),
        ("end", {"session": "Algebra"}, "session must have a host in it"),
        ("recording", {"session": "Algebra", "act": "start"}, "session must have a host in it"),
        (
            "recording",
            {"session": "Geometry", "act": "nothing"},
            "act must be one of start, pause, resume, stop, trash",
        ),
        (
            "recording",
            {"session": "Geometry", "act": "stop"},
            "act must be one that means something now: the recording",
        ),
        ("recording", {"session": "Geometry", "act": "trash"}, "act must be one that means something now: the session"),
        ("join", {"phone_number": "+1", "session": "Algebra"}, "phone_number must be a phone number such as"),
        ("join", {"phone_number": "+14155550123"}, "session must be the id or the name of a live session"),
        ("join", {"token": "x", "name": " "}, "name must be 1 to 200 characters"),
        ("events", {"session": "Algebra"}, "event must be the name of an event such as session.alert"),
        ("events", {"session": "Physics", "event": "session.alert"}, "session must be the id or the name of a session"),
    ],
)
async def test_acts_that_mean_nothing_are_refused(
    sandbox: Sandbox, path: str, fields: dict[str, Any], said: str
) -> None:
    ada = await join(sandbox, name="Ada")
    bob = await join(sandbox, name="Bob", host=True, tpc="Geometry", session_key="another")
    before = await sessions(sandbox)

    refused = await act(sandbox, path, expect=400, **fields)

    ids = f"{ada['user']['id']} (Ada), {bob['user']['id']} (Bob)"
    assert refused["message"].startswith(said.format(ids=ids))
    assert await sessions(sandbox) == before


async def test_without_an_account_there_is_no_zoom() -> None:
    async with running_sandbox() as sandbox:
        refused = await act(sandbox, "join", expect=400, token=token())
        status, _ = await zoom.request(sandbox, "GET", "/v2/videosdk/sessions")

    assert refused["message"] == "this sandbox plays no Zoom: it was started without an account there"
    assert status == 404


async def test_restart_knows_who_is_in_a_session(receiver: Receiver, tmp_path: Path) -> None:
    account = zoom.account(f"{receiver.base_url}/zoom")
    async with running_sandbox(zoom=account, data_dir=tmp_path) as sandbox:
        await join(sandbox, host=True)
        await act(sandbox, "recording", act="start")
        before = await sessions(sandbox)
    async with running_sandbox(zoom=account, data_dir=tmp_path) as sandbox:
        after = await sessions(sandbox)
        await act(sandbox, "end")

    assert after == before
    assert await next_names(receiver, 6) == [
        "started",
        "user_joined",
        "recording_started",
        "recording_stopped",
        "user_left",
        "ended",
    ]


async def test_reset_forgets_sessions(sandbox: Sandbox) -> None:
    await join(sandbox)

    await sandbox.control("POST", "reset")

    assert await sessions(sandbox) == []
