"""Legs that failed say why, in the rows of participants, in calls and in events, wherever it was learnt."""

from typing import Any

import pytest

from server.calls.checks import CheckWorker
from server.calls.parts import CallParts
from server.db import Database
from server.providers.ports import ProviderError
from tests.calls.conferences import Conference, create, events_of, make_due, participants
from tests.clients import Client
from tests.factories import make_messaging_service

ERROR = ProviderError("13224", "https://www.twilio.com/docs/api/errors/13224")
SIP = {"sip_response_code": 404}


@pytest.fixture
async def conference(client: Client, parts: CallParts, db: Database) -> Conference:
    """One whose moderator is called."""
    await make_messaging_service(db)
    conference = Conference(await create(client), parts)
    await conference.dial()
    return conference


async def error_of(conference: Conference, client: Client) -> tuple[str, str]:
    """What is told of the moderator's leg, which is told of the call too."""
    last = (await events_of(conference.parts.db, conference.call))[-1].call
    moderator, *_ = await participants(client, conference.call)
    told = (moderator.error_code, moderator.error_description)
    assert (last.internal_status, last.error_code, last.error_description) == ("failed", *told)
    assert (last.conference_call.error_code, last.conference_call.error_description) == told
    return told


async def ask(conference: Conference) -> None:
    """Ask the provider about the legs that it told nothing of."""
    parts = conference.parts
    await make_due(parts.db)
    await CheckWorker(parts.db, parts.notifications, conference.phones, parts.storage).step()


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (SIP, "SIP_404", "The phone network answered with SIP 404 (Not Found)."),
        ({**SIP, "error": ERROR}, "13224", ERROR.url),
        ({}, "CALL_FAILED", "The voice provider does not say why."),
    ],
)
async def test_leg_that_failed_says_why(
    conference: Conference, client: Client, told: dict[str, Any], code: str, words: str
) -> None:
    await conference.tell((await conference.legs())[0], "failed", **told)

    said = await error_of(conference, client)
    assert said[0] == code
    assert words in said[1]


@pytest.mark.parametrize("asks_first", [True, False])
async def test_what_only_asking_finds_out_is_told_without_a_reason_until_there_is_one(
    conference: Conference, client: Client, asks_first: bool
) -> None:
    moderator, *_ = await conference.legs()
    conference.phones.become(conference.phones.sid_of(moderator), "failed")
    if asks_first:
        await ask(conference)
        assert (await error_of(conference, client))[0] == "CALL_FAILED"

    await conference.tell(moderator, "failed", **SIP)
    await ask(conference)
    await conference.tell(moderator, "failed")

    assert (await error_of(conference, client))[0] == "SIP_404"


@pytest.mark.parametrize("status", ["busy", "no-answer", "canceled", "completed"])
async def test_leg_that_ended_otherwise_has_no_error(conference: Conference, status: str) -> None:
    await conference.tell((await conference.legs())[0], status, sip_response_code=486)

    leg = (await conference.legs())[0]
    assert (leg.error_code, leg.error_description) == (None, None)
