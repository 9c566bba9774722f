"""Rules of the .proto files that no lint knows."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import grpc
import grpc.aio
import pytest
from commonservices.v1 import access_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.clients import refusal
from tests.protos import bindings, methods, rpc_path

ROOT = Path(__file__).parent.parent
OPEN_TO_ALL = (access_pb2.ACCESS_PUBLIC, access_pb2.ACCESS_PROVIDER, access_pb2.ACCESS_PROVIDER_OR_ANY_KEY)
SERVICE_IN_FILE = 6
METHOD_IN_SERVICE = 2


def access(method: MethodDescriptor) -> int:
    return int(method.GetOptions().Extensions[access_pb2.access])


def test_every_rpc_has_an_http_binding() -> None:
    assert [rpc_path(method) for method in methods() if not bindings(method)] == []


def test_no_two_bindings_are_the_same() -> None:
    used = Counter(
        (verb, re.sub(r"{[^}]*}", "{}", path)) for method in methods() for verb, path, _body in bindings(method)
    )

    assert [binding for binding, count in used.items() if count > 1] == []


def test_every_rpc_says_who_may_call() -> None:
    assert [rpc_path(method) for method in methods() if access(method) == access_pb2.ACCESS_UNSPECIFIED] == []


def test_every_rpc_is_described(tmp_path: Path) -> None:
    built = tmp_path / "descriptor.binpb"
    buf = str(Path(sys.executable).with_name("buf"))
    command = [buf, "build", "--path", "protos/commonservices", "--as-file-descriptor-set", "-o", str(built)]
    subprocess.run(command, cwd=ROOT, check=True)

    undescribed = []
    for file in FileDescriptorSet.FromString(built.read_bytes()).file:
        described = {
            tuple(location.path) for location in file.source_code_info.location if location.leading_comments.strip()
        }
        for number, service in enumerate(file.service):
            for place, method in enumerate(service.method):
                if (SERVICE_IN_FILE, number, METHOD_IN_SERVICE, place) not in described:
                    undescribed.append(f"{service.name}.{method.name}")

    assert undescribed == []


@pytest.mark.parametrize("method", [pytest.param(m, id=m.full_name) for m in methods() if access(m) not in OPEN_TO_ALL])
async def test_missing_key_is_refused(channel: grpc.aio.Channel, method: MethodDescriptor) -> None:
    if method.server_streaming:
        call: Awaitable[object] = channel.unary_stream(rpc_path(method), bytes, bytes)(b"").read()
    else:
        call = channel.unary_unary(rpc_path(method), bytes, bytes)(b"")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")
