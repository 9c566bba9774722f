"""Cases of the API in YAML, each asked through REST and, as the http rules of the .proto files translate it, gRPC."""

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import grpc.aio
import yaml
from google.api import httpbody_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2
from grpc_status import rpc_status

from tests.protos import bindings, methods, rpc_path

# What a JSON document holds, and what YAML says of one.
Json = Any

PATTERNS = {
    "<id>": re.compile(r"[1-9]\d*"),
    "<uuid>": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "<time>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
    "<token>": re.compile(r"csk_[\w-]{43}"),
    "<prefix>": re.compile(r"csk_[\w-]{6}"),
    "<secret>": re.compile(r"whsec_\S+"),
    "<identity>": re.compile(r"staff_[0-9a-f]{32}"),
    "<jwt>": re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]{43}"),
}

_XML = "text/xml"

_IDS = frozenset({"id", "bearer_id", "video_call_id"})


@dataclass(frozen=True)
class Answer:
    """What came back, told in REST's words; `http_status` is None where gRPC answered."""

    http_status: int | None
    code: str
    body: Json
    next_page_token: str
    headers: Mapping[str, str]


@dataclass
class Step:
    """One call, and what must come back."""

    call: str
    answer: int
    by: str = "application"
    after_relay: bool = False
    token: str | None = None
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    grpc: str = "OK"
    reason: str | None = None
    fields: Sequence[str] | None = None
    metadata: Mapping[str, str] | None = None
    expect: Json = None
    absent: Sequence[str] = ()
    golden: str | None = None
    # Of an answer in XML: a file in tests/golden/calls.
    golden_xml: str | None = None
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)
    save_next_page: str | None = None


@dataclass(frozen=True)
class Case:
    """Steps in order, on an empty database."""

    name: str
    steps: Sequence[Mapping[str, Json]]
    only_rest: bool = False


class Caller(Protocol):
    """REST or gRPC."""

    async def __call__(self, step: Step, token: str | None) -> Answer: ...


def load(folder: Path) -> list[Case]:
    """The cases of all files, named after them."""
    return [
        Case(name=f"{file.stem}: {case.pop('name')}", **case)
        for file in sorted(folder.glob("*.yaml"))
        for case in yaml.safe_load(file.read_text())
    ]


def filled(value: Json, variables: Mapping[str, Json]) -> Json:
    """The value with `${name}` replaced; a string that is nothing else becomes the variable itself."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\${(\w+)}", value)
        return variables[whole[1]] if whole else Template(value).substitute(variables)
    if isinstance(value, dict):
        return {key: filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, variables) for item in value]
    return value


def rest_caller(session: aiohttp.ClientSession) -> Caller:
    """Asks as the case is written."""

    async def call(step: Step, token: str | None) -> Answer:
        method, _, path = step.call.partition(" ")
        headers = {**step.headers, **({"authorization": f"Bearer {token}"} if token else {})}
        # A text is sent as it is: it is there to be malformed.
        body = {"data": step.body} if isinstance(step.body, str) else {"json": step.body}
        async with session.request(method, path, headers=headers, **body) as answer:
            content_type = answer.headers["content-type"]
            assert content_type in ("application/json", *([_XML] if answer.status < 400 else []))
            said: Json = await answer.text() if content_type == _XML else await answer.json()
        if answer.status >= 400:
            assert said["error"]["code"] == answer.status
            assert set(said["error"]) == {"code", "status", "message", "reason", "details"}
        code = said["error"]["status"] if answer.status >= 400 else "OK"
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, code, said, headers.get("x-next-page-token", ""), headers)

    return call


def grpc_caller(channel: grpc.aio.Channel) -> Caller:
    """Asks the RPC that the http rules name, and tells its answer as REST would."""

    async def call(step: Step, token: str | None) -> Answer:
        method, request = rpc_request(step)
        metadata = (*step.headers.items(), *((("authorization", f"Bearer {token}"),) if token else ()))
        response_type = message_factory.GetMessageClass(method.output_type)
        rpc = channel.unary_unary(rpc_path(method), _serialize, response_type.FromString)(request, metadata=metadata)
        try:
            answered = await rpc
        except grpc.aio.AioRpcError as error:
            return Answer(None, error.code().name, {"error": _error(error)}, "", {})
        headers = {key: value for key, value in await rpc.initial_metadata() if isinstance(value, str)}
        if isinstance(answered, httpbody_pb2.HttpBody):
            assert answered.content_type == _XML
            return Answer(None, "OK", answered.data.decode(), "", headers)
        response = _json(answered)
        next_page_token = response.pop("next_page_token", None)
        if next_page_token is not None:
            [response] = response.values()
        return Answer(None, "OK", response, next_page_token or "", headers)

    return call


def rpc_request(step: Step) -> tuple[MethodDescriptor, Message]:
    """The RPC of a REST call and its request message."""
    verb, _, target = step.call.partition(" ")
    url = urlsplit(target)
    found = [
        (len(variables), method, variables)
        for method in methods()
        for binding, path, _body in bindings(method)
        if binding == verb and (variables := path_variables(path, url.path)) is not None
    ]
    # A literal segment beats a variable.
    _count, method, given = min(found, key=lambda candidate: candidate[0])
    query: dict[str, Json] = {}
    for name, value in parse_qsl(url.query.replace("+", "%2B")):
        is_list = method.input_type.fields_by_name[name].is_repeated
        query[name] = [*query.get(name, []), value] if is_list else value
    document = {**(deepcopy(step.body) if isinstance(step.body, dict) else {}), **query}
    for name, value in given.items():
        put(document, name, value)
    request = message_factory.GetMessageClass(method.input_type)()
    if isinstance(request, httpbody_pb2.HttpBody):
        request.content_type = "application/json"
        request.data = (step.body if isinstance(step.body, str) else json.dumps(step.body)).encode()
        return method, request
    json_format.ParseDict(document, request, ignore_unknown_fields=True)
    return method, request


def path_variables(template: str, path: str) -> dict[str, str] | None:
    """The fields that a path gives, such as `participant.global_id`; None where it is not of the template."""
    match = re.fullmatch(re.sub(r"{[\w.]+}", "([^/]+)", template), path)
    if match is None:
        return None
    return dict(zip(re.findall(r"{([\w.]+)}", template), map(unquote, match.groups()), strict=True))


def put(document: Json, path: str, value: Json) -> None:
    """Set the field at a path in the document, in messages that may not be there yet."""
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value


def differences(expected: Json, actual: Json, place: str = "body") -> list[str]:
    """Where the answer is not what is expected: of an object at least the keys that are named, of a list every item."""
    if isinstance(expected, str) and expected in PATTERNS:
        return [] if PATTERNS[expected].fullmatch(str(actual)) else [f"{place}: {actual!r} is no {expected}"]
    if isinstance(expected, dict) and isinstance(actual, dict):
        missing = [f"{place}.{key} is missing" for key in expected if key not in actual]
        return missing + [
            difference
            for key in expected.keys() & actual.keys()
            for difference in differences(expected[key], actual[key], f"{place}.{key}")
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            difference
            for index, (item, other) in enumerate(zip(expected, actual, strict=True))
            for difference in differences(item, other, f"{place}[{index}]")
        ]
    return [] if expected == actual else [f"{place}: {actual!r} is not {expected!r}"]


def with_patterns(value: Json) -> Json:
    """The document with what differs from run to run replaced by its pattern, for golden files.

    Without last_used_at, which is written within a second of a key's use and may or may not be there yet.
    """
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key != "last_used_at"}
        ids = {key: "<id>" for key, item in value.items() if key in _IDS and isinstance(item, int)}
        return {key: with_patterns(item) for key, item in value.items()} | ids
    if isinstance(value, list):
        return [with_patterns(item) for item in value]
    if isinstance(value, str):
        return next((name for name, pattern in PATTERNS.items() if pattern.fullmatch(value)), value)
    return value


def details(body: Json, kind: str) -> Mapping[str, Json]:
    """The detail of an error that is a google.rpc.<kind>; empty if there is none."""
    return next((d for d in body["error"]["details"] if d["@type"].endswith(f".{kind}")), {})


def _json(message: Message) -> Json:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(error: grpc.aio.AioRpcError) -> Json:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an aio error has what it needs
    assert status is not None, "every error of ours has details"
    return {
        "status": code_pb2.Code.Name(status.code),
        "message": status.message,
        "details": json_format.MessageToDict(status, preserving_proto_field_name=True)["details"],
        "reason": next(
            iter(
                d["reason"]
                for d in json_format.MessageToDict(status, preserving_proto_field_name=True)["details"]
                if "reason" in d
            )
        ),
    }


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
