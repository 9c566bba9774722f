"""What the commands of people on phones ask of a running sandbox, and the lines they print. Light, as `client.py`."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

from server.providers.sandbox.client import Json, SandboxClient, SandboxError, printable

HELP = "Type digits, `say` and a text, or `hangup`; Ctrl-D hangs up too."

_KEYS = re.compile(r"[0-9*#]+")


class CallClient(SandboxClient):
    """The control API of the sandbox's exchange."""

    def call(self, *, from_: str, to: str) -> Json:
        """Have a phone call a number."""
        return self._ask("POST", "/sandbox/calls", {"from": from_, "to": to})

    def connect(self, *, token: str) -> Json:
        """Have a browser call out. Raises SandboxError where the token names nobody."""
        return self._ask("POST", f"/sandbox/clients/{quote(_identity(token))}/calls", {"token": token})

    def register(self, *, token: str, **behaviour: object) -> Json:
        """Have a browser be there to be called; what is None is as usual."""
        return self._ask("POST", "/sandbox/clients", {"token": token, **_given(behaviour)})

    def state(self, sid: str) -> Json:
        """A call as it is now, with all that was heard."""
        return self._ask("GET", f"/sandbox/calls/{sid}")

    def calls(self) -> list[Json]:
        """Every call, oldest first."""
        calls: list[Json] = self._ask("GET", "/sandbox/calls")["calls"]
        return calls

    def press(self, sid: str, digits: str) -> None:
        """Press keys."""
        self._ask("POST", f"/sandbox/calls/{sid}/digits", {"digits": digits})

    def say(self, sid: str, text: str) -> None:
        """Say something."""
        self._ask("POST", f"/sandbox/calls/{sid}/speech", {"text": text})

    def hang_up(self, sid: str) -> None:
        """Hang up."""
        self._ask("POST", f"/sandbox/calls/{sid}/hangup", {})

    def problems(self, sid: str) -> list[Json]:
        """What was wrong with the account's answers to a call."""
        found = self._ask("GET", "/sandbox/problems")["problems"]
        return [problem for problem in found if problem["call_sid"] == sid]

    def set_phone(self, number: str, **behaviour: object) -> Json:
        """How a phone behaves when it is called; what is None is as usual."""
        return self._ask("PUT", f"/sandbox/phones/{quote(number)}", _given(behaviour))


class Talk:
    """One call as somebody at a terminal follows it and takes part in it."""

    def __init__(self, client: CallClient, call: Json) -> None:
        self._client = client
        self._call = call
        self._heard = 0
        self._status = ""
        self._typed: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._call["ended"] is not None

    def typed(self, line: str) -> str | None:
        """Have done what somebody typed, digits and words once the call was answered; answers what to print where it
        means nothing."""
        words = line.strip()
        is_known = words == "hangup" or _KEYS.fullmatch(words) or words.startswith("say ")
        if words and not is_known:
            return HELP
        if words:
            self._typed.append(words)
        return None

    def news(self) -> Iterator[str]:
        """What has happened since the last time, in lines."""
        self._call = self._client.state(self._call["sid"])
        if self._call["status"] != self._status and not self.is_over:
            yield f"({self._call['status']})"
        self._status = self._call["status"]
        for heard in self._call["heard"][self._heard :]:
            yield heard_line(heard)
        self._heard = len(self._call["heard"])
        if self.is_over:
            yield _ending(self._call)
        while self._typed and (self._status == "in-progress" or self._typed[0] == "hangup") and not self.is_over:
            self._do(self._typed.pop(0))

    def hang_up(self) -> None:
        """End the call, unless it has ended."""
        if self._client.state(self._call["sid"])["ended"] is None:
            self._client.hang_up(self._call["sid"])

    def failure(self) -> str | None:
        """What was wrong with the account's answers; None where nothing was."""
        problems = self._client.problems(self._call["sid"])
        if not problems:
            return None
        said = "; ".join(
            f"{problem['code']}: {printable(problem['message'])} ({problem['url']})" for problem in problems
        )
        return f"The server's answers were not as they should be: {said}."

    def _do(self, words: str) -> None:
        if words == "hangup":
            self.hang_up()
        elif words.startswith("say "):
            self._client.say(self._call["sid"], words.removeprefix("say ").strip())
        else:
            self._client.press(self._call["sid"], words)


def heard_line(heard: Json) -> str:
    """What was said, or in brackets what was done."""
    text = printable(heard["text"])
    if heard["kind"] == "say":
        return text
    done = {
        "play": f"plays {text}",
        "gather": "listens for keys",
        "record": "records what you say",
        "dial": f"connects you with {text}",
    }
    return f"[{done[heard['kind']]}]"


def call_line(call: Json) -> str:
    """When, from whom to whom, and what became of it."""
    at = datetime.fromtimestamp(call["created"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    lasted = [] if call["duration"] is None else [f"{call['duration']} s"]
    who = [] if call["answered_by"] is None else [call["answered_by"]]
    return "  ".join([at, people(call), call["direction"], call["status"], *who, *lasted, call["sid"]])


def people(call: Json) -> str:
    """From whom to whom; whom a browser calls its token may leave open."""
    return f"{printable(call['from'])} -> {printable(call['to']) or '(as the server says)'}"


def phone_line(number: str, phone: Json) -> str:
    """How a phone behaves: who picks up and when, what is pressed and said, and when it hangs up."""
    parts = [phone["pickup"], f"answers after {phone['answers_after_ms'] / 1000:g} s"]
    parts += [f"presses {keys or 'nothing'}" for keys in phone["presses"]]
    parts += [f"says {printable(text)}" for text in phone["says"]]
    if phone["hangs_up_after_ms"] is not None:
        parts.append(f"hangs up after {phone['hangs_up_after_ms'] / 1000:g} s")
    return f"{number}  {', '.join(parts)}"


def _given(behaviour: dict[str, object]) -> Json:
    return {name: value for name, value in behaviour.items() if value is not None}


def _identity(token: str) -> str:
    """Whom a token names; whether it is good the sandbox says."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["grants"]["identity"])
    except (ValueError, TypeError, LookupError) as error:
        raise SandboxError("The token is no access token: it names nobody.") from error


def _ending(call: Json) -> str:
    if call["status"] == "completed":
        return f"The call has ended after {call['duration']} s."
    return f"The call has ended: {call['status']}."
