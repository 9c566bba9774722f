"""What is recorded in the sandbox's sessions: the events, the files, and who may fetch them."""

import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.providers.sandbox.zoom_media import m4a, mp4, vtt
from tests.providers import zoom_account as zoom
from tests.providers.servers import Receiver, Sandbox, running_sandbox
from tests.providers.zoom_account import (
    SESSION_KEY,
    act,
    bearer,
    join,
    next_event,
    next_names,
    path_of,
    recorded,
    request,
)


class Clock:
    """The sandbox's, which a test moves."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sandbox(receiver: Receiver, clock: Clock) -> AsyncIterator[Sandbox]:
    async with running_sandbox(zoom=zoom.account(f"{receiver.base_url}/zoom"), now=clock) as made:
        yield made


async def record(sandbox: Sandbox) -> None:
    """Ada and Bob are recorded, and Ada ends it."""
    await join(sandbox, host=True, name="Ada")
    await join(sandbox, name="Bob")
    await act(sandbox, "recording", act="start")
    await act(sandbox, "end")


async def next_of(receiver: Receiver, name: str) -> dict[str, Any]:
    """The next event of that name."""
    while (event := await next_event(receiver))["event"] != f"session.{name}":
        pass
    return event


async def test_recording_is_told_from_start_to_files(sandbox: Sandbox, receiver: Receiver, clock: Clock) -> None:
    await join(sandbox, host=True)
    for made in ("start", "pause", "resume", "stop"):
        clock.at += timedelta(seconds=10)
        await act(sandbox, "recording", act=made)
    clock.at += timedelta(seconds=10)
    await act(sandbox, "leave")

    events = [await next_event(receiver) for _ in range(10)]

    assert [event["event"].partition(".")[2] for event in events] == [
        "started",
        "user_joined",
        "recording_started",
        "recording_paused",
        "recording_resumed",
        "recording_stopped",
        "user_left",
        "ended",
        "recording_completed",
        "recording_transcript_completed",
    ]
    started, stopped = events[2]["payload"]["object"], events[5]["payload"]["object"]
    assert set(started) == {"session_id", "session_name", "session_key", "start_time", "timezone", "recording_file"}
    assert set(started["recording_file"]) == {"recording_start"}
    at = [datetime.fromisoformat(stopped["recording_file"][f"recording_{end}"]) for end in ("start", "end")]
    assert at[1] - at[0] == timedelta(seconds=30)
    assert [event["event_ts"] for event in events] == sorted(event["event_ts"] for event in events)


async def test_files_are_named_with_where_they_are(sandbox: Sandbox, receiver: Receiver) -> None:
    await record(sandbox)

    completed = await next_of(receiver, "recording_completed")
    transcript = await next_of(receiver, "recording_transcript_completed")

    assert set(completed) == {"event", "event_ts", "download_token", "payload"}
    obj = completed["payload"]["object"]
    assert obj["session_key"] == SESSION_KEY
    assert set(obj) == {"session_id", "session_name", "session_key", "start_time", "timezone", "recording_files"}
    files = obj["recording_files"] + transcript["payload"]["object"]["recording_files"]
    assert [(file["file_type"], file["file_extension"], file["recording_type"]) for file in files] == [
        ("MP4", "MP4", "shared_screen_with_speaker_view"),
        ("M4A", "M4A", "audio_only"),
        ("TRANSCRIPT", "VTT", "audio_transcript"),
    ]
    assert {file["status"] for file in files} == {"completed"}
    assert len({file["id"] for file in files}) == 3
    assert all(file["download_url"].startswith(f"{sandbox.base_url}/rec/") for file in files)


async def test_each_recording_has_files_of_its_own(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, host=True)
    for _ in range(2):
        await act(sandbox, "recording", act="start")
        await act(sandbox, "recording", act="stop")
    await act(sandbox, "end")

    completed = await next_of(receiver, "recording_completed")

    types = [file["file_type"] for file in completed["payload"]["object"]["recording_files"]]
    assert types == ["MP4", "M4A", "MP4", "M4A"]


async def test_what_was_not_recorded_has_no_files(sandbox: Sandbox, receiver: Receiver) -> None:
    quiet = (await join(sandbox, host=True))["session"]["id"]
    await act(sandbox, "end")
    await record(sandbox)
    await recorded(sandbox)

    status, body = await request(sandbox, "GET", path_of(quiet, "/recordings"))

    assert (status, body["code"]) == (404, 3301)
    assert (await next_names(receiver, 4))[2:] == ["user_left", "ended"]
    assert (await next_names(receiver, 1)) == ["started"]


async def test_download_redirects_who_has_the_events_token(sandbox: Sandbox, receiver: Receiver) -> None:
    await record(sandbox)
    completed = await next_of(receiver, "recording_completed")
    file = completed["payload"]["object"]["recording_files"][0]
    headers = {"Authorization": f"Bearer {completed['download_token']}"}

    async with sandbox.http.get(file["download_url"], headers=headers, allow_redirects=False) as redirect:
        assert redirect.status == 302
    async with sandbox.http.get(file["download_url"], headers=headers) as response:
        data = await response.read()
        assert (response.status, response.content_type) == (200, "video/mp4")
    assert len(data) == file["file_size"]
    async with sandbox.http.get(file["download_url"], headers=bearer()) as response:
        assert await response.read() == data
    async with sandbox.http.get(redirect.headers["Location"] + "x", headers=headers) as response:
        assert response.status == 404


@pytest.mark.parametrize("header", ["", "Bearer nonsense", "Basic nonsense", None])
async def test_download_needs_a_token(sandbox: Sandbox, receiver: Receiver, header: str | None) -> None:
    await record(sandbox)
    completed = await next_of(receiver, "recording_completed")
    headers = {} if header is None else {"Authorization": header}

    url = completed["payload"]["object"]["recording_files"][0]["download_url"]
    async with sandbox.http.get(url, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (401, 124)
    async with sandbox.http.get(f"{url}?access_token={completed['download_token']}") as response:
        assert response.status == 401


async def test_download_token_is_for_one_session_and_one_day(
    sandbox: Sandbox, receiver: Receiver, clock: Clock
) -> None:
    await record(sandbox)
    first = await next_of(receiver, "recording_completed")
    await record(sandbox)
    second = await next_of(receiver, "recording_completed")
    headers = {"Authorization": f"Bearer {first['download_token']}"}
    urls = [event["payload"]["object"]["recording_files"][0]["download_url"] for event in (first, second)]

    async def status(url: str) -> int:
        async with sandbox.http.get(url, headers=headers) as response:
            return response.status

    assert [await status(url) for url in urls] == [200, 401]
    clock.at += timedelta(hours=24)
    assert [await status(url) for url in urls] == [401, 401]


async def test_downloads_misbehave_too(sandbox: Sandbox, receiver: Receiver) -> None:
    await record(sandbox)
    completed = await next_of(receiver, "recording_completed")
    await sandbox.misbehave(answer="503", next_requests=1)

    url = completed["payload"]["object"]["recording_files"][0]["download_url"]
    headers = {"Authorization": f"Bearer {completed['download_token']}"}
    async with sandbox.http.get(url, headers=headers) as first, sandbox.http.get(url, headers=headers) as second:
        assert (first.status, second.status) == (503, 200)


async def test_recordings_are_listed(sandbox: Sandbox, receiver: Receiver, clock: Clock) -> None:
    await join(sandbox, host=True)
    await act(sandbox, "recording", act="start")
    clock.at += timedelta(minutes=3)
    await act(sandbox, "end")
    session = await recorded(sandbox)

    status, body = await request(sandbox, "GET", path_of(session["id"], "/recordings"))
    _, with_token = await request(
        sandbox, "GET", path_of(session["id"], "/recordings?include_fields=download_access_token")
    )

    files = body.pop("recording_files")
    assert status == 200
    assert [file["file_type"] for file in files] == ["MP4", "M4A", "TRANSCRIPT"]
    assert (body["session_id"], body["session_key"]) == (session["id"], SESSION_KEY)
    assert (body["duration"], body["recording_count"]) == (3, 3)
    assert body["total_size"] == sum(file["file_size"] for file in files)
    headers = {"Authorization": f"Bearer {with_token['download_access_token']}"}
    async with sandbox.http.get(files[2]["download_url"], headers=headers) as response:
        assert (await response.read()).startswith(b"WEBVTT\n")


async def test_recordings_go_to_the_trash_and_come_back(sandbox: Sandbox, receiver: Receiver) -> None:
    await record(sandbox)
    session = await recorded(sandbox)
    recordings = path_of(session["id"], "/recordings")
    url = session["files"][0]["download_url"]

    async def fetched() -> tuple[int, int]:
        async with sandbox.http.get(url, headers=bearer()) as response:
            return (await request(sandbox, "GET", recordings))[0], response.status

    assert (await request(sandbox, "DELETE", recordings))[0] == 204
    assert await fetched() == (404, 404)
    assert (await request(sandbox, "DELETE", recordings))[0] == 404
    assert (await request(sandbox, "PUT", f"{recordings}/status", json={"action": "recover"}))[0] == 204
    assert await fetched() == (200, 200)
    await act(sandbox, "recording", act="trash")
    await act(sandbox, "recording", act="recover", session="Algebra")
    assert (await request(sandbox, "DELETE", f"{recordings}?action=delete"))[0] == 204
    assert await fetched() == (404, 404)
    refused = await act(sandbox, "recording", expect=400, act="recover")

    trashed = await next_of(receiver, "recording_trashed")
    assert set(trashed["payload"]) == {"account_id", "object", "operator", "operator_id"}
    obj = trashed["payload"]["object"]
    assert set(obj) == {"session_id", "session_name", "session_key", "start_time", "timezone"}
    rest = ["recording_recovered", "recording_trashed", "recording_recovered", "recording_deleted"]
    assert await next_names(receiver, 4) == rest
    assert refused["message"] == "act must be one that means something now: the recordings are deleted"


@pytest.mark.parametrize(
    ("method", "rest", "sent"),
    [
        ("DELETE", "?action=burn", {}),
        ("PUT", "/status", {"json": {"action": "trash"}}),
        ("PUT", "/status", {"data": b"recover"}),
    ],
)
async def test_moves_that_are_none_are_refused(
    sandbox: Sandbox, receiver: Receiver, method: str, rest: str, sent: dict[str, Any]
) -> None:
    await record(sandbox)
    session = await recorded(sandbox)

    status, body = await request(sandbox, method, path_of(session["id"], f"/recordings{rest}"), **sent)

    assert (status, body["code"]) == (400, 300)


async def test_restart_makes_the_files_that_are_due(receiver: Receiver, tmp_path: Path) -> None:
    over: dict[str, Any] = {"zoom": zoom.account(receiver.base_url), "data_dir": tmp_path}
    async with running_sandbox(**over, base_url="http://before.example", step_delay=timedelta(hours=1)) as sandbox:
        await record(sandbox)
    async with running_sandbox(**over, base_url="http://after.example"):
        names = await next_names(receiver, 8)
        completed = await next_event(receiver)
        transcript = await next_event(receiver)

    assert names[-1] == "ended"
    assert [event["event"].partition(".")[2] for event in (completed, transcript)] == [
        "recording_completed",
        "recording_transcript_completed",
    ]
    urls = [file["download_url"] for file in completed["payload"]["object"]["recording_files"]]
    assert all(url.startswith("http://after.example/rec/webhook_download/") for url in urls)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an MP4, those within them after them."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at
        yield kind, data[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            yield from boxes(data[at + 8 : at + size])
        at += size


@pytest.mark.parametrize(("data", "handlers"), [(mp4(7), [b"vide", b"soun"]), (m4a(7), [b"soun"])])
def test_files_are_as_long_as_the_recording_and_hold_their_samples(data: bytes, handlers: list[bytes]) -> None:
    found = list(boxes(data))
    of = {kind: [body for each, body in found if each == kind] for kind, _ in found}

    assert found[0][0] == b"ftyp"
    assert [body[8:12] for body in of[b"hdlr"]] == handlers
    assert struct.unpack_from(">II", of[b"mvhd"][0], 12) == (1000, 7000)
    end = data.index(b"mdat") + 4
    for sizes, chunks in zip(of[b"stsz"], of[b"stco"], strict=True):
        length, count = struct.unpack_from(">II", sizes, 4)
        (offset,) = struct.unpack_from(">I", chunks, 8)
        assert offset == end
        end = offset + length * count
    assert data[end + 4 : end + 8] == b"moov"
    timescale, duration = struct.unpack_from(">II", of[b"mdhd"][-1], 12)
    assert duration / timescale == pytest.approx(7, abs=0.05)


def test_transcript_has_a_line_of_everybody() -> None:
    assert vtt(["Ada", "Bob\nBobson"], 3).decode() == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.500\nAda: I am here.\n\n"
        "2\n00:00:01.500 --> 00:00:03.000\nBob Bobson: I am here.\n"
    )
