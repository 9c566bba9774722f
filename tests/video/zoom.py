"""Zoom's webhooks about a call, signed and posted to the API under test."""

import hashlib
import hmac
import itertools
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from commonservices.v1 import video_call_pb2, zoom_request_service_pb2_grpc
from google.api import httpbody_pb2

from tests.conftest import ZOOM_WEBHOOK_SECRET_TOKEN

# When the first session of every test began: so long ago that no call of it lasts, and that its tokens are good.
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)

DOWNLOAD_TOKEN = "a-download-token"

Body = dict[str, Any]

_SESSIONS = itertools.count(1)
_USERS = itertools.count(16778240, 1024)


def at(minutes: float) -> datetime:
    """So many minutes after the first session began."""
    return START + timedelta(minutes=minutes)


def iso(when: datetime) -> str:
    """A time as Zoom spells it."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def new_session_id() -> str:
    """An id of a session, with the characters that paths do not like."""
    return f"{next(_SESSIONS):08}+/abc=="


def new_user_id() -> str:
    """An id of a user in a session."""
    return str(next(_USERS))


@dataclass(frozen=True)
class Story:
    """What happens in one session of a call, event by event, at minutes after START."""

    call: video_call_pb2.VideoCall
    session_id: str = field(default_factory=new_session_id)
    start: float = 0

    def event(self, name: str, minutes: float, *, download_token: str | None = None, **about: Any) -> Body:
        """An event of the session; None leaves a field out."""
        session = {
            "session_id": self.session_id,
            "session_name": self.call.session_name,
            "session_key": UUID(self.call.shunkan_ido_session_key).hex,
            **about,
        }
        told = {key: value for key, value in session.items() if value is not None}
        body: Body = {
            "event": name,
            "event_ts": int(at(minutes).timestamp() * 1000),
            "payload": {"account_id": "account", "object": told},
        }
        return body if download_token is None else {**body, "download_token": download_token}

    def started(self) -> Body:
        """The session began."""
        return self.event("session.started", self.start, start_time=iso(at(self.start)))

    def ended(self, minutes: float) -> Body:
        """The session ended."""
        times = {"start_time": iso(at(self.start)), "end_time": iso(at(minutes))}
        return self.event("session.ended", minutes, **times)

    def joined(self, minutes: float, *, user_id: str, name: str = "Somebody", user_key: str | None = None) -> Body:
        """Somebody came."""
        user = {"id": user_id, "name": name, "join_time": iso(at(minutes))}
        return self.event("session.user_joined", minutes, user=_keyed(user, user_key))

    def left(
        self, minutes: float, *, user_id: str, name: str = "Somebody", user_key: str | None = None, why: str = "left"
    ) -> Body:
        """Somebody left."""
        user = {"id": user_id, "name": name, "leave_time": iso(at(minutes)), "leave_reason": why}
        return self.event("session.user_left", minutes, user=_keyed(user, user_key))

    def recording(self, word: str, minutes: float, **more: Any) -> Body:
        """`recording_started`, and so on."""
        return self.event(f"session.recording_{word}", minutes, start_time=iso(at(self.start)), **more)

    def files(self, minutes: float, *files: Body, word: str = "completed") -> Body:
        """Files can be fetched, with a token that is good for a day."""
        return self.recording(word, minutes, download_token=DOWNLOAD_TOKEN, recording_files=list(files))


def file(file_id: str = "file-1", **over: Any) -> Body:
    """A file of a recording, as Zoom lists it; None leaves a field out."""
    listed = {
        "id": file_id,
        "recording_start": iso(at(1)),
        "recording_end": iso(at(9)),
        "file_type": "MP4",
        "file_size": 7,
        "file_extension": "MP4",
        "download_url": "https://zoom.example/rec/1",
        "status": "completed",
        "recording_type": "shared_screen_with_speaker_view",
        **over,
    }
    return {key: value for key, value in listed.items() if value is not None}


def _keyed(user: Body, user_key: str | None) -> Body:
    return user if user_key is None else {**user, "user_key": UUID(user_key).hex}


@dataclass(frozen=True)
class Zoom:
    """Posts webhooks, signed with the secret token of the settings under test."""

    stub: "zoom_request_service_pb2_grpc.ZoomRequestServiceAsyncStub"

    async def tell(self, *events: Body) -> None:
        """Post events one after the other; each is answered {}."""
        for event in events:
            answer = await self.post(json.dumps(event).encode())
            assert (answer.content_type, answer.data) == ("application/json", b"{}")

    async def post(self, body: bytes, **signed: Any) -> httpbody_pb2.HttpBody:
        """Post a body and answer what Zoom is answered."""
        request = httpbody_pb2.HttpBody(content_type="application/json; charset=utf-8", data=body)
        return await self.stub.ReceiveZoomEvent(request, metadata=signature(body, **signed))


def signature(
    body: bytes, *, secret: str = ZOOM_WEBHOOK_SECRET_TOKEN, age: timedelta = timedelta(0)
) -> tuple[tuple[str, str], ...]:
    """The header fields that prove a webhook."""
    timestamp = str(int(time.time() - age.total_seconds()))
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return (("x-zm-request-timestamp", timestamp), ("x-zm-signature", f"v0={digest}"))
