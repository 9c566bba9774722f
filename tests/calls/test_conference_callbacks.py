"""What the provider posts about conferences, through the front door: signed forms, and the TwiML they are answered."""

from typing import Any

import grpc
import grpc.aio
import pytest
from commonservices.v1 import twilio_call_service_pb2, twilio_call_service_pb2_grpc

from server.calls.conferences import callbacks as conference_callbacks
from server.calls.parts import CallParts
from server.db import Database
from server.errors import Unavailable
from server.providers.ports import ProviderOutcomeUnknown
from server.providers.sandbox.callbacks import signature
from server.providers.voice_ports import LegProgress
from tests.calls.conferences import (
    CONFERENCE_SID,
    CONTACTS,
    MODERATOR,
    Conference,
    cancel,
    create,
    event,
    events_of,
    failing,
    participants,
    statuses_of,
)
from tests.calls.twilio import CALLS_PATH, Script, Twilio, call_sid
from tests.clients import Client, refused
from tests.conftest import PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN
from tests.factories import SENDER, make_messaging_service

WELCOME = "Good morning. This is the school."


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One whose moderator is called."""
    conference = Conference(await create(client, welcome_message=WELCOME), parts)
    await conference.dial()
    return conference


class Posts:
    """Twilio's posts about one conference, as it would make them with or without what our URLs name."""

    def __init__(self, twilio: Twilio, channel: grpc.aio.Channel, conference: Conference) -> None:
        self._twilio = twilio
        self._stub = twilio_call_service_pb2_grpc.TwilioCallServiceStub(channel)
        self._conference = conference

    async def ask(
        self,
        who: int,
        status: str,
        answered_by: str,
        *,
        named: bool = True,
        welcomed: bool = False,
        sid: str | None = None,
    ) -> Script:
        """Somebody's script is asked for, at first or once they have heard the welcome message."""
        leg = (await self._conference.legs())[who]
        path = f"{CALLS_PATH}/voice_responses?conference_uuid={self._conference.uuid}"
        path += (f"&leg_uuid={leg.uuid}" if named else "") + ("&welcomed=1" if welcomed else "")
        form = self._call(sid or leg.call_sid or "", leg.address, status) | {"AnsweredBy": answered_by}
        return await self._twilio.post(self._stub.AnswerConferenceLeg, path, form)

    async def join(self, who: int, answered_by: str = "human") -> Script:
        """A contact answers and hears the welcome message; what they are to do then."""
        await self.ask(who, "in-progress", answered_by)
        return await self.ask(who, "in-progress", answered_by, welcomed=True)

    async def tell(self, who: int, status: str, *, named: bool = True, **over: str) -> None:
        """A status callback of somebody's call."""
        leg = (await self._conference.legs())[who]
        query = f"?call_uuid={self._conference.call.uuid}&leg_uuid={leg.uuid}" if named else ""
        form = self._call(leg.call_sid or "", leg.address, status) | over
        await self._twilio.post(
            self._stub.UpdateParticipantStatus, f"{CALLS_PATH}/participant_status_changes{query}", form
        )

    async def happen(self, name: str, who: int | None = None, *, named: bool = True, **over: str) -> None:
        """An event of the conference."""
        query = f"?conference_uuid={self._conference.uuid}" if named else ""
        form = {
            "FriendlyName": str(self._conference.uuid),
            "ConferenceSid": CONFERENCE_SID,
            "StatusCallbackEvent": name,
            "SequenceNumber": "1",
            "Timestamp": "Mon, 23 Nov 2026 10:00:00 +0000",
            **over,
        }
        if who is not None:
            form["CallSid"] = (await self._conference.legs())[who].call_sid or ""
        await self._twilio.post(
            self._stub.UpdateConferenceStatus, f"{CALLS_PATH}/conference_status_changes{query}", form
        )

    def _call(self, sid: str, to: str, status: str) -> dict[str, str]:
        return {"CallSid": sid, "From": SENDER, "To": to, "CallStatus": status, "Direction": "outbound-api"}


@pytest.fixture
def posts(twilio: Twilio, channel: grpc.aio.Channel, conference: Conference) -> Posts:
    """Twilio, in this conference."""
    return Posts(twilio, channel, conference)


async def invite(conference: Conference, posts: Posts) -> None:
    """Until the contacts are called."""
    await posts.ask(0, "in-progress", "human")
    await conference.dial()


async def test_moderator_begins_and_ends_the_conference(conference: Conference, posts: Posts) -> None:
    script = await posts.ask(0, "in-progress", "human")

    assert script.verbs == ["Dial/Conference"]
    [room] = script.root.iter("Conference")
    assert room.text == str(conference.uuid)
    assert room.attrib["startConferenceOnEnter"] == room.attrib["endConferenceOnExit"] == "true"
    assert (await conference.status())[0] == "inviting"


async def test_contact_hears_the_welcome_message_and_waits_for_the_moderator(
    conference: Conference, posts: Posts
) -> None:
    await invite(conference, posts)

    first = await posts.ask(1, "in-progress", "unknown")
    before = (await conference.legs())[1].joined_at
    second = await posts.ask(1, "in-progress", "unknown", welcomed=True)

    assert (first.verbs, second.verbs) == (["Say", "Redirect"], ["Dial/Conference"])
    assert first.spoken == WELCOME
    asked = f"{CALLS_PATH}/voice_responses?conference_uuid={conference.uuid}&leg_uuid="
    leg = (await conference.legs())[1]
    assert first.root.findtext("Redirect") == f"{PUBLIC_BASE_URL}{asked}{leg.uuid}&welcomed=1#rc=5&rp=all"
    assert (before is None, leg.joined_at is None) == (True, False)
    [room] = second.root.iter("Conference")
    assert room.attrib["startConferenceOnEnter"] == "false"
    assert room.text == str(conference.uuid)


@pytest.mark.parametrize("answered_by", ["machine_start", "fax"])
async def test_moderators_machine_is_hung_up_on_and_nobody_called(
    conference: Conference, posts: Posts, db: Database, answered_by: str
) -> None:
    script = await posts.ask(0, "in-progress", answered_by)
    await posts.tell(0, "completed", AnsweredBy=answered_by)

    assert script.verbs == ["Hangup"]
    last = (await events_of(db, conference.call))[-1].call
    assert (last.internal_status, last.machine_detected) == ("no_answer", True)
    assert [leg.dial_attempts for leg in await conference.legs()] == [1, 0, 0]


async def test_contacts_machine_joins_and_is_told_of(conference: Conference, posts: Posts, client: Client) -> None:
    await invite(conference, posts)

    script = await posts.join(1, "machine_start")

    assert script.verbs == ["Dial/Conference"]
    told = await participants(client, conference.call)
    assert [(each.internal_status, each.HasField("machine_detected"), each.machine_detected) for each in told] == [
        ("joined", True, False),
        ("joined", True, True),
        ("calling", False, False),
    ]


async def test_conference_is_told_of_from_first_to_last(conference: Conference, posts: Posts, db: Database) -> None:
    await posts.tell(0, "ringing")
    await posts.ask(0, "in-progress", "human")
    await posts.happen("participant-join", 0)
    await conference.dial()
    await posts.join(1)
    await posts.happen("participant-join", 1)
    await posts.happen("conference-start")
    await posts.tell(2, "no-answer")
    for who in (1, 0):
        await posts.happen("participant-leave", who, ParticipantCallStatus="completed")
        await posts.tell(who, "completed", CallDuration="12")
    await posts.happen("conference-end")

    assert await statuses_of(db, conference.call) == [
        ("pending", None),
        ("pending", None),
        ("inviting", None),
        ("inviting", "participant-join"),
        ("finished", "participant-join"),
        ("finished", "conference-end"),
    ]
    told = await events_of(db, conference.call)
    assert [each.sequence for each in told] == list(range(1, len(told) + 1))
    # Whose call it is, and who answered.
    assert [told[1].call.HasField("call_sid"), told[2].call.HasField("machine_detected")] == [True, True]


async def test_repeated_callbacks_tell_nothing_new(conference: Conference, posts: Posts, db: Database) -> None:
    await invite(conference, posts)
    for _ in range(3):
        await posts.ask(0, "in-progress", "human")
        await posts.happen("participant-join", 0)
        await posts.tell(0, "in-progress")
        await posts.tell(0, "ringing")

    told = await statuses_of(db, conference.call)
    assert told[-1] == ("inviting", "participant-join")
    assert len(told) == len(set(told)) + 1


@pytest.mark.parametrize("named", [True, False])
async def test_mocked_order_is_survived(conference: Conference, posts: Posts, db: Database, named: bool) -> None:
    first = await posts.ask(0, "ringing", "unknown", named=named)
    await posts.happen("conference-end", named=named)
    await posts.tell(0, "ringing", named=named)
    await posts.tell(0, "completed", named=named)
    last = await posts.ask(0, "completed", "human", named=named)

    assert first.verbs == last.verbs == ["Dial/Conference"]
    assert await conference.status() == ("no_answer", "conference-end")
    assert (await statuses_of(db, conference.call))[-1] == ("no_answer", "conference-end")
    assert [leg.dial_attempts for leg in await conference.legs()] == [1, 0, 0]


async def test_event_names_its_conference_by_name_where_its_url_does_not(conference: Conference, posts: Posts) -> None:
    await posts.happen("participant-join", 0, named=False)

    assert await conference.status() == ("inviting", "participant-join")


async def test_leg_is_known_by_its_number_where_nothing_else_names_it(
    client: Client, parts: CallParts, twilio: Twilio, channel: grpc.aio.Channel
) -> None:
    conference = Conference(await create(client), parts, failing(ProviderOutcomeUnknown("lost"), takes_it=True))
    await conference.dial()
    posts = Posts(twilio, channel, conference)
    sid = call_sid()

    script = await posts.ask(0, "in-progress", "human", named=False, sid=sid)

    assert script.verbs == ["Dial/Conference"]
    assert (await conference.legs())[0].call_sid == sid
    assert (await conference.status())[0] == "inviting"


async def test_who_answers_when_it_is_over_is_hung_up_on(conference: Conference, posts: Posts, client: Client) -> None:
    await invite(conference, posts)
    await cancel(client, conference.call)

    script = await posts.ask(1, "in-progress", "human")

    assert script.verbs == ["Hangup"]
    assert (await conference.legs())[1].joined_at is None


async def test_stranger_and_unknown_conference_are_hung_up_on(conference: Conference, posts: Posts) -> None:
    stranger = await posts.ask(0, "in-progress", "human", sid=call_sid())
    await conference.parts.db.execute("UPDATE conference_calls SET uuid = gen_random_uuid()")
    nowhere = await posts.ask(0, "in-progress", "human")

    assert stranger.verbs == nowhere.verbs == ["Hangup"]
    assert (await conference.status())[0] == "pending"


async def test_callbacks_of_nothing_known_change_nothing(
    conference: Conference, posts: Posts, db: Database, twilio: Twilio
) -> None:
    before = len(await events_of(db, conference.call))
    await conference.parts.db.execute("UPDATE conference_calls SET uuid = gen_random_uuid()")
    await conference.parts.db.execute("UPDATE call_legs SET uuid = gen_random_uuid(), call_sid = NULL")

    await conference_callbacks.update_conference(conference.parts, event(None, "conference-end"))
    await conference_callbacks.update_leg(conference.parts, LegProgress(**unknown_progress()))

    assert len(await events_of(db, conference.call)) == before


def unknown_progress() -> dict[str, Any]:
    nothing = dict.fromkeys(("answered_by", "occurred_at", "error", "sip_response_code", "leg_uuid"))
    return {
        **nothing,
        "call_sid": call_sid(),
        "provider_status": "completed",
        "to_number": MODERATOR,
    }


async def test_join_of_a_call_that_nobody_knows_yet_is_asked_for_again(client: Client, parts: CallParts) -> None:
    conference = Conference(await create(client), parts, failing(ProviderOutcomeUnknown("lost"), takes_it=True))
    await conference.dial()
    moderator, *_ = await conference.legs()

    with pytest.raises(Unavailable):
        await conference.happen("participant-join", moderator)
    await conference.tell(moderator, "in-progress")
    before = (await conference.status())[0]
    await conference.happen("participant-join", moderator)

    assert before == "pending"
    assert await conference.status() == ("inviting", "participant-join")


async def test_error_of_a_leg_is_told(conference: Conference, posts: Posts, db: Database) -> None:
    await posts.tell(0, "failed", ErrorCode="13225")

    last = (await events_of(db, conference.call))[-1].call
    assert (last.internal_status, last.error_code) == ("failed", "13225")
    assert "13225" in last.error_description
    assert last.conference_call.error_code == "13225"


async def test_welcome_message_is_spoken_for_whoever_may_ask(conference: Conference, channel: grpc.aio.Channel) -> None:
    stub = twilio_call_service_pb2_grpc.TwilioCallServiceStub(channel)

    async def ask(uuid: str, token: str = TWILIO_AUTH_TOKEN) -> Any:
        path = f"{CALLS_PATH}/{uuid}/call_welcome_message"
        metadata = (
            ("x-twilio-signature", signature(token, PUBLIC_BASE_URL + path, {})),
            ("x-envoy-original-path", path),
        )
        return await stub.GetWelcomeMessage(
            twilio_call_service_pb2.GetWelcomeMessageRequest(id=uuid), metadata=metadata
        )

    for uuid in (str(conference.uuid), conference.call.uuid):
        script = Script((await ask(uuid)).data)
        assert (script.verbs, script.spoken) == (["Say"], WELCOME)
    unknown = await refused(ask("00000000-0000-0000-0000-000000000000"))
    forged = await refused(ask(str(conference.uuid), "another-token"))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "CONFERENCE_CALL_NOT_FOUND")
    assert forged.code == grpc.StatusCode.PERMISSION_DENIED


async def test_both_contacts_are_called_by_their_own_numbers(conference: Conference, posts: Posts) -> None:
    await invite(conference, posts)

    assert sorted(call.to_number for call in conference.phones.dialled) == sorted([MODERATOR, *CONTACTS])
    assert [leg.call_sid for leg in await conference.legs()] == [
        conference.phones.sid_of(leg) for leg in await conference.legs()
    ]
