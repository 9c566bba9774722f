"""Legs of conferences, valid where nothing else is said."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from server.providers.voice_ports import OutboundCall

NUMBER = "+12065550100"
OTHER_NUMBER = "+12065550101"
PHONE = "+14155550123"
OTHER_PHONE = "+14155550124"

NO_CALL = "CA" + "0" * 32
NO_CONFERENCE = "CF" + "0" * 32
NO_RECORDING = "RE" + "0" * 32


def make_call(**over: Any) -> OutboundCall:
    """One that the sandbox dials."""
    plain = OutboundCall(
        call_uuid=uuid4(),
        conference_uuid=uuid4(),
        leg_uuid=uuid4(),
        from_number=NUMBER,
        to_number=PHONE,
        ring_for=timedelta(seconds=30),
        time_limit=timedelta(minutes=10),
    )
    return replace(plain, **over)
