"""gRPC handlers of events."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc.aio
from commonservices.v1 import event_pb2, event_service_pb2_grpc
from commonservices.v1 import event_service_pb2 as pb

from server.caller import Caller
from server.db import Database
from server.events import convert, log
from server.events.stream import Streams, SubscriberTooSlow
from server.paging import Page
from server.rpc import answers, auth
from server.validation import checking, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]

_HEARTBEAT = timedelta(seconds=30)
_WRITE_TIMEOUT = timedelta(seconds=20)


class EventService(event_service_pb2_grpc.EventServiceServicer):
    """The log as a stream and as pages."""

    def __init__(
        self,
        db: Database,
        streams: Streams,
        *,
        still_valid: Callable[[Caller], Awaitable[bool]],
        write_timeout: timedelta = _WRITE_TIMEOUT,
    ) -> None:
        self._db = db
        self._streams = streams
        self._still_valid = still_valid
        self._write_timeout = write_timeout

    async def StreamEvents(  # type: ignore[override]  # a write can be given a time limit, a generator's yield cannot
        self, request: pb.StreamEventsRequest, context: Context
    ) -> None:
        caller = auth.caller()
        with checking(request) as bad:
            from_time = bad.time("from_time", request.from_time) if request.HasField("from_time") else None

        async def prove() -> None:
            if not await self._still_valid(caller):
                raise auth.CredentialsInvalid("the token was revoked, or its bearer's type changed")

        sent = await self._streams.begin(
            after_cursor=request.after_cursor if request.HasField("after_cursor") else None,
            from_start=request.from_start,
            from_time=from_time,
        )
        batches = self._streams.follow(
            after=sent,
            owner_id=caller.owner_id,
            types=frozenset(request.event_types),
            heartbeat=request.heartbeat.ToTimedelta() if request.HasField("heartbeat") else _HEARTBEAT,
            prove=prove,
        )
        async with aclosing(batches):
            async for batch in batches:
                try:
                    async with asyncio.timeout(self._write_timeout.total_seconds()):
                        await context.write(convert.batch_to_proto(batch.events, batch.position))
                except TimeoutError as error:
                    raise SubscriberTooSlow(sent) from error
                sent = batch.position

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        with checking(request) as bad:
            since = bad.time("since", request.since) if request.HasField("since") else None
            until = bad.time("until", request.until) if request.HasField("until") else None
            resource_uuid = parse_uuid(request.resource_uuid) if request.resource_uuid else None
            if request.resource_uuid and resource_uuid is None:
                bad.add("resource_uuid", "is not a UUID")
        events, next_page_token = await log.list_events(
            self._db,
            owner_id=auth.caller().owner_id,
            types=frozenset(request.event_types),
            resource_uuid=resource_uuid,
            since=since,
            until=until,
            page=Page(request),
        )
        await answers.paged(context, request, next_page_token)
        return pb.ListEventsResponse(events=[logged.event for logged in events], next_page_token=next_page_token)

    async def GetEvent(self, request: pb.GetEventRequest, context: Context) -> event_pb2.Event:
        return await log.get_event(self._db, event_id=request.id, owner_id=auth.caller().owner_id)
