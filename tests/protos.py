"""Every RPC of ours, from the generated modules."""

import importlib
import pkgutil
from collections.abc import Iterator

import commonservices.v1
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor


def files() -> Iterator[FileDescriptor]:
    """The .proto files of the API."""
    for module in pkgutil.iter_modules(commonservices.v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"commonservices.v1.{module.name}").DESCRIPTOR


def methods() -> list[MethodDescriptor]:
    """Its RPCs."""
    return [method for file in files() for service in file.services_by_name.values() for method in service.methods]


def rpc_path(method: MethodDescriptor) -> str:
    """How gRPC names it on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def bindings(method: MethodDescriptor) -> list[tuple[str, str, str]]:
    """HTTP method, path template and `body` of each of its bindings."""
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[annotations_pb2.http]
    found = []
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb == "custom":
            found.append((binding.custom.kind, binding.custom.path, binding.body))
        elif verb is not None:
            found.append((verb.upper(), getattr(binding, verb), binding.body))
    return found
