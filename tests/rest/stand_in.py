"""An api server that answers as a test says, behind the real edge: for what is about Envoy and not about the API."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2, message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server.caller import BearerType, Caller
from server.rpc.auth import Gate
from server.rpc.edge import Edge
from tests.protos import methods, rpc_path

# Requests and answers are of any type.
Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, Context], Awaitable[Message]]
Stream = Callable[[Any, Context], Awaitable[None]]


_METHODS = {rpc_path(method): method for method in methods()}


@dataclass
class StandIn(grpc.GenericRpcHandler):
    """Serves every RPC of ours; a test sets the answers of those that it calls."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Find the handler of a method, by the descriptors."""
        method = _METHODS.get(handler_call_details.method)
        if method is None:
            return None
        name = method.name
        request_type = message_factory.GetMessageClass(method.input_type)

        async def answer(request: Message, context: Context) -> Message:
            return await self.answers[name](request, context)

        async def stream(request: Message, context: Context) -> None:
            await self.streams[name](request, context)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, request_type.FromString, _serialize)
        return grpc.unary_unary_rpc_method_handler(answer, request_type.FromString, _serialize)


async def empty(_request: Message, _context: Context) -> Message:
    """Answer nothing."""
    return empty_pb2.Empty()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


@asynccontextmanager
async def serving_stand_in() -> AsyncIterator[StandIn]:
    """Serve until the block ends."""
    server = grpc.aio.server(interceptors=[Edge(Gate(_anybody))])
    stand_in = StandIn()
    server.add_generic_rpc_handlers((stand_in,))
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection(
        [*{method.containing_service.full_name for method in methods()}, reflection.SERVICE_NAME], server
    )
    stand_in.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    yield stand_in
    await server.stop(0)


async def _anybody(_token: str) -> Caller:
    return Caller(bearer_id=1, bearer_type=BearerType.ADMIN, api_key_id=1)
