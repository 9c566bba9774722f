"""The edge of every RPC: authentication, errors, one canonical log line. Handlers below it hold no `try`."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog

from server.rpc import errors
from server.rpc.auth import Gate, access_of

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
# Handlers of all message types pass through here; only the stubs know it as generic.
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler

# How long the status of a failed call may take to leave.
_STATUS_SECONDS = 20.0

# Infrastructure that every gRPC client and proxy may ask, without credentials.
_PUBLIC_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours, once."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Answer the wrapped handler of the method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            return _UNKNOWN
        if method.startswith(_PUBLIC_SERVICES):
            return handler
        self._wrapped[method] = wrapped = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._handle(method, handler, handler.unary_unary), None, handler.response_serializer
            )
        assert inspect.iscoroutinefunction(handler.unary_stream), f"{method} is neither unary nor writes by itself"
        return grpc.unary_stream_rpc_method_handler(
            self._handle(method, handler, handler.unary_stream), None, handler.response_serializer
        )

    def _handle(
        self, method: str, handler: Handler, behavior: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        """Requests are read here, because grpc would tell the caller of a malformed one in Python's words. Streaming
        handlers are coroutines as well, which write their responses themselves: cancelling the call ends them,
        wherever they are, and they can limit how long a write takes."""
        access = access_of(method)
        parse = handler.request_deserializer
        assert parse is not None, "generated handlers have one"

        async def handle(raw: bytes, context: Context) -> Any:
            call = _Call(method, context)
            try:
                call.caller = await self._gate.enter(access, call.metadata.get("authorization"))
                response = await behavior(parse(raw), context)
            except asyncio.CancelledError:
                call.finish(grpc.StatusCode.CANCELLED)
                raise
            except Exception as error:
                await call.fail(error)
                raise AssertionError("abort raises") from error
            call.finish(grpc.StatusCode.OK)
            return response

        return handle


class _Call:
    """One call, for its log line and its end."""

    def __init__(self, method: str, context: Context) -> None:
        self.method = method
        self.context = context
        self.metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.caller: Any = None
        self._began = time.perf_counter()

    def finish(self, code: grpc.StatusCode, reason: str | None = None) -> None:
        log.info(
            "rpc.finished",
            method=self.method,
            code=code.name,
            reason=reason,
            bearer_id=self.caller.bearer_id if self.caller else None,
            request_id=self.metadata.get("x-request-id"),
            duration_ms=round((time.perf_counter() - self._began) * 1000, 2),
        )

    async def fail(self, error: Exception) -> None:
        """Tell the caller what it may know, and the log the rest; ends the call by raising."""
        failure = errors.failure_of(error)
        if failure is None:
            log.error("rpc.fault", method=self.method, request_id=self.metadata.get("x-request-id"), exc_info=error)
            failure = errors.INTERNAL
        elif failure.code is grpc.StatusCode.UNAVAILABLE:
            log.warning("rpc.unavailable", method=self.method, error=str(error))
        self.finish(failure.code, failure.reason)
        transcoded = "x-envoy-original-path" in self.metadata
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                await self.context.abort_with_status(errors.RpcStatus(failure, transcoded=transcoded))
        except TimeoutError:
            # It waits behind responses that the caller does not read. gRPC keeps it until they are read.
            raise asyncio.CancelledError from error


async def _no_such_method(_raw: bytes, context: Context) -> None:
    await context.abort_with_status(errors.RpcStatus(errors.METHOD_NOT_FOUND, transcoded=False))


_UNKNOWN: Handler = grpc.unary_unary_rpc_method_handler(_no_such_method)
