"""`python -m server sandbox video …`, as a person types it, against a sandbox on a socket."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.providers import zoom_account as zoom
from tests.providers.servers import Receiver, Sandbox, closed_port_url, running_sandbox
from tests.providers.test_sandbox_commands import AT, Ended, run
from tests.providers.zoom_account import join, next_names, recorded, sessions, token


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(zoom=zoom.account(f"{receiver.base_url}/zoom")) as running:
        yield running


async def video(sandbox: Sandbox, *words: str) -> Ended:
    return await run("video", *words, "--sandbox", sandbox.base_url)


async def test_join_says_who_came_and_what_was_answered(sandbox: Sandbox, receiver: Receiver) -> None:
    ended = await video(sandbox, "join", "--token", token(host=True), "--name", "Ada\x1b[31m")

    (session,) = await sessions(sandbox)
    assert (ended.code, ended.error) == (0, "")
    assert ended.lines == [
        rf"Ada\x1b[31m ({session['users'][0]['id']}) joined Algebra  {session['id']}",
        f"session.started posted to {receiver.base_url}/zoom, which answered 200",
        f"session.user_joined posted to {receiver.base_url}/zoom, which answered 200",
    ]


async def test_call_from_join_to_files(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, host=True, name="Ada")
    bob = (await join(sandbox, name="Bob"))["user"]["id"]
    done = [
        await video(sandbox, "record", "start"),
        await video(sandbox, "record", "pause", "algebra"),
        await video(sandbox, "record", "resume"),
        await video(sandbox, "leave", bob),
        await video(sandbox, "record", "stop"),
        await video(sandbox, "end"),
    ]
    session = await recorded(sandbox)
    shown = await video(sandbox, "sessions")

    assert [ended.code for ended in done] == [0] * 6
    assert [ended.lines[0].partition("  ")[0] for ended in done] == [
        "started the recording of Algebra",
        "paused the recording of Algebra",
        "resumed the recording of Algebra",
        f"Bob ({bob}) left Algebra",
        "stopped the recording of Algebra",
        "ended Algebra",
    ]
    assert len(done[-1].lines) == 3
    first, ada, bobs, *files = shown.lines
    assert re.fullmatch(rf"{AT}  ended {AT}  Algebra  {re.escape(session['id'])}", first)
    assert re.fullmatch(rf"  \d+  Ada  host  joined {AT}, left {AT}", ada)
    assert re.fullmatch(rf"  {bob}  Bob  participant  joined {AT}, left {AT}", bobs)
    assert [line.split()[0] for line in files] == ["MP4", "M4A", "TRANSCRIPT"]
    assert files[0].endswith(session["files"][0]["download_url"])


async def test_live_session_is_shown_as_it_is(sandbox: Sandbox) -> None:
    await join(sandbox, host=True)
    await video(sandbox, "record", "start")

    shown = await video(sandbox, "sessions")

    assert re.match(rf"{AT}  live  Algebra  recording started  /", shown.lines[0])
    assert re.fullmatch(rf"  \d+  Host  host  joined {AT}", shown.lines[1])


async def test_sandbox_is_found_by_the_data_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "sandbox_url").write_text(sandbox.base_url)

    joined = await run("video", "join", "--token", token(), "--data-dir", str(tmp_path))
    shown = await run("video", "sessions", COMMON_SERVICES_DATA_DIR=str(tmp_path))

    assert joined.code == 0
    assert len(shown.lines) == 2


@pytest.mark.parametrize("words", [("sessions",), ("join", "--token", "x"), ("leave",), ("end",), ("record", "stop")])
async def test_sandbox_that_is_not_found_is_said(words: tuple[str, ...], tmp_path: Path) -> None:
    missing = await run("video", *words, "--data-dir", str(tmp_path))
    silent = await run("video", *words, "--sandbox", closed_port_url())

    assert [missing.code, silent.code] == [1, 1]
    assert missing.error.startswith(f"Error: No sandbox runs on the data folder {tmp_path}")
    assert silent.error == f"Error: Cannot reach the sandbox at {closed_port_url()}: Connection refused. Does it run?"


async def test_token_that_is_not_good_is_said(sandbox: Sandbox) -> None:
    ended = await video(sandbox, "join", "--token", token(role_type=2), "--session-name", "Geometry")

    assert (ended.code, ended.lines) == (1, [])
    assert ended.error == (
        "Error: The sandbox refused: token.role_type must be 1 for a host or 0 for a participant; token.tpc must be the"
        " name of the session that is joined."
    )


async def test_nobody_there_to_act_is_said(sandbox: Sandbox) -> None:
    left = await video(sandbox, "leave")
    ended = await video(sandbox, "end")

    assert left.error == "Error: The sandbox refused: user must be one of those who are in a session: nobody is."
    assert ended.error == (
        "Error: The sandbox refused: session must be the id or the name of a live session: there is none."
    )


async def test_sandbox_without_zoom_is_said() -> None:
    async with running_sandbox() as sandbox:
        ended = await video(sandbox, "sessions")

    assert ended.code == 1
    assert ended.error == (
        "Error: The sandbox refused: this sandbox plays no Zoom: it was started without an account there."
    )


async def test_server_that_does_not_take_an_event_is_said(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [500, 403]

    ended = await video(sandbox, "join", "--token", token())

    assert ended.code == 1
    assert ended.lines[1].endswith("which answered 500")
    assert ended.error == (
        "Error: The server did not take session.started: it failed; session.user_joined: it refused it. Each is posted "
        "three more times."
    )
    assert sorted((await next_names(receiver, 4))[2:]) == ["started", "user_joined"]


async def test_what_nobody_is_told_is_said(sandbox: Sandbox) -> None:
    await sandbox.misbehave(callbacks="missing")
    missing = await video(sandbox, "join", "--token", token())
    await sandbox.misbehave(callbacks="reordered")
    reordered = await video(sandbox, "join", "--token", token())

    assert (missing.code, missing.error) == (1, "Error: Callbacks are told to go missing: nobody was told.")
    assert reordered.code == 0
    assert reordered.lines[1:] == [
        "Callbacks are told to come in another order: these are posted when the session has ended."
    ]
