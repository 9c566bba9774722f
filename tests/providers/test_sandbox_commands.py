"""`python -m server sandbox text` and `inbox`, as a person types them, against a sandbox on a socket."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from tests.providers.servers import PATIENCE, Receiver, Sandbox, closed_port_url, running_sandbox

PHONE = "+14155550123"
NUMBER = "+12065550100"
TEXT = ("text", "--from", PHONE, "--to", NUMBER)
AT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    """A sandbox that tells the receiver of every text."""
    async with running_sandbox(inbound_url=f"{receiver.base_url}/inbound") as running:
        yield running


@asynccontextmanager
async def typed(*words: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "server", "sandbox", *words),
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class Ended:
    """How a command ended."""

    code: int
    lines: list[str]
    error: str


async def run(*words: str, **environment: str) -> Ended:
    async with typed(*words, **environment) as process:
        out, error = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode().splitlines(), error.decode().strip())


async def test_text_says_what_was_sent_and_what_was_answered(sandbox: Sandbox, receiver: Receiver) -> None:
    ended = await run(*TEXT, "We will be late.", "--sandbox", sandbox.base_url)

    sid = dict(parse_qsl((await receiver.next()).body.decode()))["MessageSid"]
    assert (ended.code, ended.error) == (0, "")
    sent, posted = ended.lines
    assert re.fullmatch(rf"{sid}  {AT}  {re.escape(f'{PHONE} -> {NUMBER}  received  We will be late.')}", sent)
    assert posted == f"posted to {receiver.base_url}/inbound, which answered 200"


async def test_files_are_sent_as_what_their_names_say(sandbox: Sandbox, receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"PNG")
    (tmp_path / "b.unheard-of").write_bytes(b"?")
    files = [word for name in ("a.png", "b.unheard-of") for word in ("--media", str(tmp_path / name))]

    ended = await run(*TEXT, *files, "--sandbox", sandbox.base_url)

    told = dict(parse_qsl((await receiver.next()).body.decode(), keep_blank_values=True))
    assert ended.code == 0
    assert (told["Body"], told["MediaContentType0"], told["MediaContentType1"]) == (
        "",
        "image/png",
        "application/octet-stream",
    )
    assert ended.lines[0].endswith(f"received  {told['MediaUrl0']}  {told['MediaUrl1']}")


async def test_sandbox_is_found_by_the_data_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "sandbox_url").write_text(sandbox.base_url)

    by_option = await run(*TEXT, "first", "--data-dir", str(tmp_path))
    by_environment = await run("inbox", COMMON_SERVICES_DATA_DIR=str(tmp_path))

    assert by_option.code == 0
    assert [line.rpartition("  ")[2] for line in by_environment.lines] == ["first"]


@pytest.mark.parametrize("command", [(*TEXT, "hello"), ("inbox",)], ids=["text", "inbox"])
async def test_sandbox_that_is_not_found_is_said(command: tuple[str, ...], tmp_path: Path) -> None:
    missing = await run(*command, "--data-dir", str(tmp_path))
    silent = await run(*command, "--sandbox", closed_port_url())
    impossible = await run(*command, "--sandbox", "somewhere")

    assert [missing.code, silent.code, impossible.code] == [1, 1, 1]
    assert missing.error == (
        f"Error: No sandbox runs on the data folder {tmp_path} (No such file or directory: sandbox_url). Start one with"
        " `make run`, or name one with --sandbox URL."
    )
    assert silent.error == f"Error: Cannot reach the sandbox at {closed_port_url()}: Connection refused. Does it run?"
    assert impossible.error == "Error: somewhere is not a URL such as http://127.0.0.1:8081."


async def test_number_that_is_not_ours_is_said(sandbox: Sandbox) -> None:
    ended = await run("text", "--from", PHONE, "--to", "+13035550100", "hello", "--sandbox", sandbox.base_url)

    assert (ended.code, ended.lines) == (1, [])
    assert ended.error.startswith("Error: The sandbox refused: to must be one of the account's numbers")


@pytest.mark.parametrize("spelling", ["415-555-0123", "(415) 555-0123", "4155550123", "+1 415 555 0123"])
async def test_numbers_are_read_in_any_spelling(sandbox: Sandbox, spelling: str) -> None:
    to = ("--to", "206.555.0100")

    texted = await run("text", "--from", spelling, *to, "hello", "--sandbox", sandbox.base_url)
    inbox = await run("inbox", spelling, "--sandbox", sandbox.base_url)

    assert texted.code == inbox.code == 0
    assert texted.lines[0].endswith(f"  {PHONE} -> {NUMBER}  received  hello")
    assert [line.partition("  ")[2] for line in inbox.lines] == [f"{PHONE} -> {NUMBER}  received  hello"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("text", "--from", "555-0123", "--to", NUMBER, "hello"), "'--from'"),
        (("text", "--from", PHONE, "--to", "206-555-XXXX", "hello"), "'--to'"),
        (("inbox", "nobody"), "'[PHONE]'"),
        (("inbox", ""), "'[PHONE]'"),
    ],
)
async def test_what_is_no_number_is_refused_by_name(sandbox: Sandbox, command: tuple[str, ...], named: str) -> None:
    ended = await run(*command, "--sandbox", sandbox.base_url)

    assert (ended.code, ended.lines) == (2, [])
    assert ended.error.endswith(
        f"Error: Invalid value for {named}: It is not a possible phone number; give E.164, such as +12065550100."
    )
    assert await sandbox.taken() == []


async def test_nothing_to_send_is_said(sandbox: Sandbox) -> None:
    ended = await run(*TEXT, "--sandbox", sandbox.base_url)

    assert ended.code == 2
    assert "A text, or --media, is needed." in ended.error
    assert await sandbox.taken() == []


@pytest.mark.parametrize(("status", "said"), [(403, "it refused it"), (500, "it failed")])
async def test_server_that_does_not_take_a_text_is_said(
    sandbox: Sandbox, receiver: Receiver, status: int, said: str
) -> None:
    receiver.statuses = [status]

    ended = await run(*TEXT, "hello", "--sandbox", sandbox.base_url)

    assert ended.code == 1
    assert ended.lines[1] == f"posted to {receiver.base_url}/inbound, which answered {status}"
    assert ended.error == f"Error: The server did not take the text: {said}."


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", f"{NUMBER} has no inbound URL: nobody was told of the text."),
        (closed_port_url(), "The server did not take the text: it cannot be reached."),
    ],
)
async def test_text_that_reaches_nobody_is_said(sandbox: Sandbox, url: str, said: str) -> None:
    await sandbox.rest("POST", f"/v1/Services/{MESSAGING_SERVICE_SID}", data={"InboundRequestUrl": url})

    ended = await run(*TEXT, "hello", "--sandbox", sandbox.base_url)

    assert (ended.code, ended.error) == (1, f"Error: {said}")
    assert ended.lines[0].endswith("received  hello")


async def test_answer_that_means_nothing_is_said(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.answer = ("application/json", "{}")

    ended = await run(*TEXT, "hello", "--sandbox", sandbox.base_url)

    assert ended.lines[2].startswith("the answer is not TwiML that means something: 12300: ")


async def until_delivered(sandbox: Sandbox) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(taken["status"] not in ("received", "delivered") for taken in await sandbox.taken()):
            pass


async def test_inbox_has_what_phones_sent_and_got_on_one_line_each(sandbox: Sandbox) -> None:
    await sandbox.create(Body="two\nlines \x1b[31m", MediaUrl="https://media.example/1.jpg")
    await sandbox.text(body="STOP")
    await sandbox.text(body="hello", from_="+14155550124")
    await until_delivered(sandbox)

    everybody = await run("inbox", "--sandbox", sandbox.base_url)
    one = await run("inbox", PHONE, "--sandbox", sandbox.base_url)
    nobody = await run("inbox", "+14155550125", "--sandbox", sandbox.base_url)

    lines = [line.partition("  ")[2] for line in everybody.lines]
    assert all(re.match(AT, line) for line in everybody.lines)
    assert lines[:2] == [
        rf"{NUMBER} -> {PHONE}  delivered  two\nlines \x1b[31m  https://media.example/1.jpg",
        f"{PHONE} -> {NUMBER}  received  STOP",
    ]
    assert lines[2].startswith(f"{NUMBER} -> {PHONE}  carrier  You have successfully been unsubscribed.")
    assert lines[3] == f"+14155550124 -> {NUMBER}  received  hello"
    assert one.lines == everybody.lines[:3]
    assert (nobody.code, nobody.lines) == (0, [])


async def test_followed_inbox_prints_each_message_once_at_its_end(sandbox: Sandbox) -> None:
    await sandbox.create(Body="before")
    async with typed("inbox", PHONE, "--follow", "--sandbox", sandbox.base_url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [await asyncio.wait_for(process.stdout.readline(), PATIENCE)]
        for body in ("after", "later"):
            await sandbox.create(Body=body)
            await sandbox.create(Body="to somebody else", To="+14155550124")
            lines.append(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        process.send_signal(signal.SIGINT)
        rest, error = await asyncio.wait_for(process.communicate(), PATIENCE)

    assert [line.decode().strip().split("  ")[2:] for line in lines] == [
        ["delivered", body] for body in ("before", "after", "later")
    ]
    assert (process.returncode, rest, error) == (0, b"", b"")
