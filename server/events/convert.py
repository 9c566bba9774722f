"""Stored event -> proto: the one place."""

from collections.abc import Sequence

from commonservices.v1 import event_pb2 as pb
from commonservices.v1 import event_service_pb2

from server.events import cursor


def event_to_proto(position: int, payload: bytes) -> pb.Event:
    """The event as it was appended, and its place in the log."""
    event = pb.Event.FromString(payload)
    event.cursor = cursor.encode(position)
    return event


def batch_to_proto(events: Sequence[pb.Event], position: int) -> event_service_pb2.StreamEventsResponse:
    """One response of a stream; a heartbeat where there are no events."""
    return event_service_pb2.StreamEventsResponse(events=events, cursor=cursor.encode(position))
