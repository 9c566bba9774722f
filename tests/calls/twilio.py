"""Twilio as the API sees it: signed form posts about browsers' and contacts' calls, and the TwiML it is answered."""

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import grpc.aio
from commonservices.v1 import sdk_call_service_pb2_grpc, twilio_call_service_pb2_grpc
from google.api import httpbody_pb2

from server.providers.sandbox.callbacks import signature
from tests.clients import Metadata
from tests.conftest import PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN
from tests.factories import RECEIVER, SENDER

FORM = "application/x-www-form-urlencoded"
SDK_PATH = "/api/v1/sdk_calls/response"
CALLS_PATH = "/api/v1/twilio_calls"

_GOLDEN = Path(__file__).parent.parent / "golden" / "calls"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDENTITY = re.compile(r"staff_[0-9a-f]{32}")
_SIDS = itertools.count(1)

# The RPC of each path that is posted to about a call that is under way.
_METHODS = {
    "incoming": "ReceiveCall",
    "return_call_menu": "ChooseFromReturnCallMenu",
    "dial_results": "ReceiveDialResult",
    "participant_status_changes": "UpdateParticipantStatus",
}


def call_sid() -> str:
    """The sid of a call that there was not yet."""
    return f"CA{next(_SIDS):032x}"


@dataclass(frozen=True)
class Script:
    """A TwiML answer, read."""

    document: bytes

    @property
    def root(self) -> ET.Element:
        """The `<Response>`."""
        root = ET.fromstring(self.document)  # noqa: S314 our own
        assert root.tag == "Response"
        return root

    @property
    def verbs(self) -> list[str]:
        """The verbs in their order, each with the nouns in it: `Dial/Number`."""
        return [f"{verb.tag}/{verb[0].tag}" if len(verb) else verb.tag for verb in self.root]

    @property
    def spoken(self) -> str:
        """Everything that is said."""
        return " ".join(say.text or "" for say in self.root.iter("Say"))

    def url(self, path: str, name: str) -> str:
        """The URL in an attribute of the element at a path, without the overrides of its fragment."""
        found = self.root.find(path)
        assert found is not None, self.document
        return found.attrib[name].partition("#")[0]

    @property
    def call_uuid(self) -> UUID:
        """The call that it is about."""
        found = re.search(rb"call_uuid=([0-9a-f-]{36})", self.document)
        assert found is not None, self.document
        return UUID(found[1].decode())

    def is_golden(self, name: str) -> bool:
        """Whether it is the document of a golden file, but for ids of its own."""
        expected = (_GOLDEN / f"{name}.xml").read_text()
        return _canonical(self.document.decode()) == _canonical(expected)


def _canonical(document: str) -> str:
    return _IDENTITY.sub("STAFF", _UUID.sub("UUID", ET.canonicalize(document, strip_text=True)))


class Twilio:
    """Posts to an API, signed by the account of the settings under test."""

    def __init__(
        self, channel: grpc.aio.Channel, *, auth_token: str = TWILIO_AUTH_TOKEN, metadata: Metadata = ()
    ) -> None:
        self._channel = channel
        self._sdk = sdk_call_service_pb2_grpc.SdkCallServiceStub(channel)
        self._calls = twilio_call_service_pb2_grpc.TwilioCallServiceStub(channel)
        self._auth_token = auth_token
        self._metadata = metadata

    def with_metadata(self, *metadata: tuple[str, str]) -> "Twilio":
        """One that sends these headers too."""
        return Twilio(self._channel, auth_token=self._auth_token, metadata=metadata)

    async def browser(
        self,
        identity: str,
        *,
        sid: str | None = None,
        to: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> Script:
        """A browser connects and asks what to dial; parameters are its token's and its page's."""
        form = _call(sid, f"client:{identity}", to) | dict(parameters or {})
        return await self.post(self._sdk.RespondToSdkCall, SDK_PATH, form)

    async def phone(self, *, sid: str | None = None, caller: str = RECEIVER, to: str = SENDER) -> Script:
        """A phone calls a number of ours."""
        return await self.post(self._calls.ReceiveCall, f"{CALLS_PATH}/incoming", _call(sid, caller, to))

    async def press(self, menu: Script, digits: str, *, sid: str) -> Script:
        """What is pressed in a menu; nothing where it is empty."""
        form = _call(sid) | {"CallStatus": "in-progress", "Digits": digits}
        return await self.follow(menu.url("Gather", "action"), form)

    async def dialled(
        self,
        script: Script,
        dial_status: str,
        *,
        sid: str,
        dial_call_sid: str | None = None,
        call_status: str = "in-progress",
    ) -> Script:
        """How the dial of a script ended; the call that dialled is over where its caller hung up."""
        form = _call(sid) | {"CallStatus": call_status, "DialCallStatus": dial_status}
        if dial_call_sid is not None:
            form["DialCallSid"] = dial_call_sid
        return await self.follow(script.url("Dial", "action"), form)

    async def progress(
        self,
        script: Script,
        status: str | None,
        *,
        sid: str,
        parent: str | None = None,
        answered_by: str | None = None,
        error_code: str | None = None,
    ) -> None:
        """What is told of the leg that a script dials; of a detection no status is."""
        noun = "Dial/Number" if script.root.find("Dial/Number") is not None else "Dial/Client"
        form = {"CallSid": sid, "AccountSid": "AC" + "0" * 32}
        optional = {
            "CallStatus": status,
            "ParentCallSid": parent,
            "AnsweredBy": answered_by,
            "ErrorCode": error_code,
        }
        await self.follow(
            script.url(noun, "statusCallback"), form | {name: value for name, value in optional.items() if value}
        )

    async def follow(self, url: str, form: Mapping[str, str]) -> Script:
        """Post to a URL of ours."""
        parts = urlsplit(url)
        assert url.startswith(PUBLIC_BASE_URL)
        method = getattr(self._calls, _METHODS[parts.path.rpartition("/")[2]])
        return await self.post(method, url.removeprefix(PUBLIC_BASE_URL), form)

    async def post(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[httpbody_pb2.HttpBody, httpbody_pb2.HttpBody]",
        path: str,
        form: Mapping[str, str],
    ) -> Script:
        """Post a form and read what Twilio is answered."""
        metadata = (
            ("x-twilio-signature", signature(self._auth_token, PUBLIC_BASE_URL + path, form)),
            ("x-envoy-original-path", path),
            *self._metadata,
        )
        body = httpbody_pb2.HttpBody(content_type=FORM, data=urlencode(form).encode())
        answer = await method(body, metadata=metadata)
        assert answer.content_type == "text/xml"
        return Script(answer.data)


def query_of(url: str) -> dict[str, str]:
    """What a URL names."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def _call(sid: str | None, caller: str = RECEIVER, to: str = SENDER) -> dict[str, str]:
    return {
        "CallSid": sid or call_sid(),
        "AccountSid": "AC" + "0" * 32,
        "From": caller,
        "To": to,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "ApiVersion": "2010-04-01",
    }
