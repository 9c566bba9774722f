"""What the commands of a person ask of a running sandbox, and the lines they print. Light: a person waits for it."""

import json
import mimetypes
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

POLL_SECONDS = 0.3
# The account is posted to for 15 s at most, each time that it is told.
_ANSWER_SECONDS = 60.0

_ENDED = ("received", "delivered", "undelivered", "failed", "canceled")

Json = dict[str, Any]


class SandboxError(Exception):
    """What a person cannot do, in one sentence."""


class SandboxClient:
    """The control API of the sandbox at a base URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.strip())
        if parts.scheme != "http" or not parts.hostname:
            raise SandboxError(f"{url.strip()} is not a URL such as http://127.0.0.1:8081.")
        self._url = parts.geturl()
        self._address = parts.netloc

    def text(self, *, from_: str, to: str, body: str, media: tuple[Path, ...]) -> Json:
        """Send a text from a phone; the answer is that of POST /sandbox/texts."""
        files = [{"content_type": _type_of(path), "data": b64encode(path.read_bytes()).decode()} for path in media]
        return self._ask("POST", "/sandbox/texts", {"from": from_, "to": to, "body": body, "media": files})

    def messages(self, *, phone: str | None, since: float = 0) -> list[Json]:
        """What phones, or one of them, have received and sent, oldest first."""
        query: dict[str, object] = {"updated_since": since} | ({} if phone is None else {"phone": phone})
        messages: list[Json] = self._ask("GET", f"/sandbox/messages?{urlencode(query)}")["messages"]
        return messages

    def follow(self, *, phone: str | None) -> Iterator[Json]:
        """Each message once it has come to its end, for ever."""
        seen: set[str] = set()
        since = 0.0
        while True:
            # Of the same second again: a message may have changed after it was looked at.
            for message in self.messages(phone=phone, since=since - 1):
                since = max(since, message["updated"])
                if message["status"] in _ENDED and message["sid"] not in seen:
                    seen.add(message["sid"])
                    yield message
            time.sleep(POLL_SECONDS)

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        connection = HTTPConnection(self._address, timeout=_ANSWER_SECONDS)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = _json(response)
        except (OSError, HTTPException) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise SandboxError(f"Cannot reach the sandbox at {self._url}: {why}. Does it run?") from error
        finally:
            connection.close()
        if response.status != 200:
            raise SandboxError(f"The sandbox refused: {answer.get('message', response.reason)}.")
        return answer


def inbox_line(message: Json) -> str:
    """When, from whom to whom, what became of it, text and media."""
    at = datetime.fromtimestamp(message["created"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    status = "carrier" if message["by_carrier"] else message["status"]
    said = [printable(message["body"])] if message["body"] else []
    people = f"{message['from'] or '(a number of the service)'} -> {message['to']}"
    return "  ".join([at, people, status, *said, *message["media_urls"]])


def text_lines(sent: Json) -> list[str]:
    """What was sent, and how the account answered."""
    message, webhook = sent["message"], sent["webhook"]
    lines = [f"{message['sid']}  {inbox_line(message)}"]
    for answer in webhook["answers"]:
        status = "not at all" if answer["status"] is None else answer["status"]
        lines.append(f"posted to {webhook['url']}, which answered {status}")
        lines += [f"the answer is not TwiML that means something: {answer['problem']}"] if answer["problem"] else []
    return lines


def text_failure(sent: Json) -> str | None:
    """Why nobody on the other side has the text, None where somebody has."""
    message, webhook = sent["message"], sent["webhook"]
    if webhook["url"] is None:
        return f"{message['to']} has no inbound URL: nobody was told of the text."
    if not webhook["answers"]:
        return "Callbacks are told to go missing: nobody was told of the text."
    failures = [answer["failure"] for answer in webhook["answers"]]
    if None in failures:
        return None
    return f"The server did not take the text: {FAILURES[failures[-1]]}."


FAILURES = {
    "4xx": "it refused it",
    "5xx": "it failed",
    "ct": "it cannot be reached",
    "rt": "it did not answer",
    "tt": "it did not answer in time",
}


def _json(response: HTTPResponse) -> Json:
    try:
        answer = json.loads(response.read())
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {}


def _type_of(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def printable(text: str) -> str:
    """One line, whatever a text holds; a terminal is not to obey it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
