"""Print every event from the beginning of the log, then as they happen."""

import asyncio
from pathlib import Path

import grpc.aio
from commonservices.v1 import event_service_pb2, event_service_pb2_grpc


async def main() -> None:
    token = Path(".data/admin_token").read_text()
    async with grpc.aio.insecure_channel("127.0.0.1:8080") as channel:
        events = event_service_pb2_grpc.EventServiceStub(channel)
        request = event_service_pb2.StreamEventsRequest(from_start=True)
        async for response in events.StreamEvents(request, metadata=[("authorization", f"Bearer {token}")]):
            for event in response.events:
                resource = getattr(event, str(event.WhichOneof("data")))
                print(event.sequence, event.type, resource.internal_status, resource.provider_status)
            # Keep response.cursor when the events are handled: after_cursor=… resumes just after them.


asyncio.run(main())
