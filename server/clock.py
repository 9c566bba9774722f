"""Times on their way to the wire."""

from datetime import datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


@overload
def timestamp(value: datetime) -> Timestamp: ...
@overload
def timestamp(value: None) -> None: ...
def timestamp(value: datetime | None) -> Timestamp | None:
    """The protobuf Timestamp of a time, None of none."""
    if value is None:
        return None
    converted = Timestamp()
    converted.FromDatetime(value)
    return converted
