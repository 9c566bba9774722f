"""`python -m server sandbox call`, `calls` and `phone`, as a person types them, against a sandbox on a socket."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.providers.sandbox_voice.account import NUMBER, OTHER_PHONE, PHONE, Account, access_token, call_of
from tests.providers.servers import PATIENCE, Sandbox, closed_port_url, running_sandbox

CALL = ("call", "--from", PHONE, "--to", NUMBER)
HELP = "Type digits, `say` and a text, or `hangup`; Ctrl-D hangs up too."
HOLD = '<Say>Please hold</Say><Pause length="3600"/>'


class Terminal:
    """A command that runs, what is typed into it, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def type(self, line: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def end_input(self) -> None:
        """Ctrl-D."""
        assert self._process.stdin is not None
        self._process.stdin.write_eof()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        return line.decode().rstrip("\n")

    async def until(self, wanted: str) -> None:
        """The lines up to this one."""
        async with asyncio.timeout(PATIENCE):
            while (line := await self.line()) != wanted:
                assert line, "it has ended"

    async def ended(self) -> tuple[int, list[str], str]:
        """Its exit code, the lines that were left, and its error."""
        out, error = await asyncio.wait_for(self._process.communicate(), PATIENCE)
        assert self._process.returncode is not None
        return self._process.returncode, out.decode().splitlines(), error.decode().strip()


@asynccontextmanager
async def terminal(*words: str, sandbox: str) -> AsyncIterator[Terminal]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "server", "sandbox", *words, "--sandbox", sandbox),
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_caller_hears_the_menu_presses_a_key_and_the_call_ends(sandbox: Sandbox, account: Account) -> None:
    menu = "<Say>Press 1 for the school.</Say>"
    account.url("/voice", f'<Gather action="/chosen" numDigits="1" timeout="3600">{menu}</Gather>')
    account.url("/chosen", "<Say>Thank you.</Say>")
    async with terminal(*CALL, sandbox=sandbox.base_url) as person:
        first = await person.line()
        await person.until("Press 1 for the school.")
        person.type("1")
        code, lines, error = await person.ended()

    assert re.fullmatch(rf"CA[0-9a-f]{{32}}  {re.escape(PHONE)} -> {re.escape(NUMBER)}", first)
    assert (code, error) == (0, "")
    assert "Thank you." in lines
    assert re.fullmatch(r"The call has ended after \d+ s\.", lines[-1])
    assert account.got("/chosen")[0]["Digits"] == "1"


async def test_caller_leaves_a_message(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Say>Speak now</Say><Record action="/recorded" timeout="3600" finishOnKey="#"/>')
    account.url("/recorded", "<Hangup/>")
    async with terminal(*CALL, sandbox=sandbox.base_url) as person:
        await person.until("[records what you say]")
        person.type("say We will be late")
        person.type("#")
        code, _, error = await person.ended()

    assert (code, error) == (0, "")
    (recorded,) = account.got("/recorded")
    assert recorded["Digits"] == "#"


@pytest.mark.parametrize("ending", ["hangup", "Ctrl-D", "Ctrl-C"])
async def test_caller_hangs_up(sandbox: Sandbox, account: Account, ending: str) -> None:
    account.url("/voice", HOLD)
    async with terminal(*CALL, sandbox=sandbox.base_url) as person:
        await person.until("Please hold")
        if ending == "hangup":
            person.type("hangup")
        elif ending == "Ctrl-D":
            person.end_input()
        else:
            person.interrupt()
        code, lines, error = await person.ended()

    assert (code, error) == (0, "")
    assert lines[-1].startswith("The call has ended after ")
    (call,) = (await sandbox.control("GET", "calls"))["calls"]
    assert call["status"] == "completed"


async def test_caller_is_told_what_can_be_typed(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", HOLD)
    async with terminal(*CALL, sandbox=sandbox.base_url) as person:
        await person.until("Please hold")
        person.type("hello?")
        await person.until(HELP)
        person.end_input()
        code, _, _ = await person.ended()

    assert code == 0


async def test_server_that_answers_no_twiml_is_named(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", "<Sing/>")
    async with terminal(*CALL, sandbox=sandbox.base_url) as person:
        code, _, error = await person.ended()

    assert code == 1
    assert error.startswith("Error: The server's answers were not as they should be: 12200: ")
    assert account.url("/voice") in error


async def test_number_that_is_not_ours_is_refused(sandbox: Sandbox) -> None:
    async with terminal("call", "--from", PHONE, "--to", OTHER_PHONE, sandbox=sandbox.base_url) as person:
        code, lines, error = await person.ended()

    owns = "to must be one of the account's numbers, which GET /sandbox/numbers lists"
    assert (code, lines, error) == (1, [], f"Error: The sandbox refused: {owns}.")


async def test_sandbox_that_is_not_there_is_named() -> None:
    async with terminal(*CALL, sandbox=closed_port_url()) as person:
        code, _, error = await person.ended()

    assert (code, error) == (
        1,
        f"Error: Cannot reach the sandbox at {closed_port_url()}: Connection refused. Does it run?",
    )


async def test_calls_are_printed_with_what_became_of_them(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", "<Hangup/>")
    called = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})
    await call_of(sandbox, called["sid"])
    async with terminal("calls", sandbox=sandbox.base_url) as person:
        code, lines, _ = await person.ended()

    people = re.escape(f"{PHONE} -> {NUMBER}")
    assert code == 0
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ  {people}  inbound  completed  \d+ s  {called['sid']}", lines[0]
    )


async def test_phone_is_told_how_to_behave_and_is_ordinary_again(sandbox: Sandbox) -> None:
    words = ("--pickup", "machine", "--answers-after", "2.5", "--says", "Hello", "--presses", "1")
    async with terminal("phone", PHONE, *words, sandbox=sandbox.base_url) as person:
        told = await person.ended()
    phones = await sandbox.control("GET", "phones")
    async with terminal("phone", PHONE, sandbox=sandbox.base_url) as person:
        code, _, _ = await person.ended()

    assert told[0] == code == 0
    assert told[1] == [f"{PHONE}  machine, answers after 2.5 s, presses 1, says Hello"]
    assert phones[PHONE]["answers_after_ms"] == 2500
    assert (await sandbox.control("GET", "phones"))[PHONE]["pickup"] == "human"


async def test_number_without_a_voice_url_is_named() -> None:
    async with running_sandbox() as sandbox, terminal(*CALL, sandbox=sandbox.base_url) as person:
        code, _, error = await person.ended()

    assert (code, error) == (
        1,
        "Error: The sandbox refused: to must be a number with a voice URL; this one rings nowhere.",
    )


async def test_browser_calls_out_from_a_terminal(sandbox: Sandbox, account: Account) -> None:
    account.url("/app", "<Say>Connecting</Say>")
    async with terminal("browser", "call", "--token", access_token(), sandbox=sandbox.base_url) as person:
        code, lines, error = await person.ended()

    assert (code, error) == (0, "")
    assert lines[0].endswith("  client:staff -> (as the server says)")
    assert "Connecting" in lines


async def test_browser_registers_and_is_called(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Dial action="/dialled"><Client>staff</Client></Dial>')
    words = ("browser", "register", "--token", access_token(), "--pickup", "busy")
    async with terminal(*words, sandbox=sandbox.base_url) as person:
        code, lines, _ = await person.ended()

    await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})

    (dialled,) = await account.get("/dialled")
    assert (code, lines) == (0, ["client:staff  busy, answers after 0 s"])
    assert dialled["DialCallStatus"] == "busy"


@pytest.mark.parametrize("words", [("call",), ("register",)])
async def test_browser_with_no_token_of_ours_is_refused(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    async with terminal("browser", *words, "--token", "no.token", sandbox=sandbox.base_url) as person:
        code, lines, error = await person.ended()

    assert (code, lines) == (1, [])
    assert "token" in error
