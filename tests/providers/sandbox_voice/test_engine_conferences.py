import pytest

from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_phones import Phone, Pickup
from server.providers.sandbox.voice_records import (
    Call,
    ConferenceStatus,
    Entry,
    NotFound,
    NotInProgress,
    Participant,
    ParticipantStatus,
)
from tests.providers.sandbox_voice.engine import OTHER_PHONE, OUR_NUMBER, SANDBOX_URL, Engine, in_order
from tests.providers.servers import ACCOUNT_SID

EVENTS = "start end join leave mute hold modify announcement"
MODERATOR = f"""<Dial action='/left'><Conference startConferenceOnEnter='true' endConferenceOnExit='true'
    participantLabel='moderator' statusCallback='/conference' statusCallbackEvent='{EVENTS}'>room</Conference></Dial>"""
CONTACT = """<Dial><Conference startConferenceOnEnter='false' statusCallback='/others' statusCallbackEvent='join'>room
    </Conference></Dial><Redirect>/after</Redirect>"""


async def joined(engine: Engine, twiml: str, *, path: str, count: int, phone: Phone | None = None) -> Call:
    """A call that follows this, once the conference was told of so many events."""
    call = engine.call(engine.answers(path, twiml), to=f"+1415555{count:04}", phone=phone)
    await engine.get("/conference", count)
    return call


async def conferring(engine: Engine) -> tuple[Call, Call]:
    """A moderator and a contact, who talk."""
    moderator = await joined(engine, MODERATOR, path="/moderator", count=1)
    contact = await joined(engine, CONTACT, path="/contact", count=3)
    return moderator, contact


def events(engine: Engine) -> list[tuple[str, str | None]]:
    """What was told so far, and of which call."""
    told = in_order(engine.got("/conference"))
    assert [each["SequenceNumber"] for each in told] == [str(number) for number in range(1, len(told) + 1)]
    return [(each["StatusCallbackEvent"], each.get("CallSid")) for each in told]


async def test_a_conference_starts_with_the_second_who_comes(engine: Engine) -> None:
    moderator = await joined(engine, MODERATOR, path="/moderator", count=1)
    conference = engine.exchange.conferences()[0]
    assert (conference.friendly_name, conference.status) == ("room", ConferenceStatus.INIT)

    contact = await joined(engine, CONTACT, path="/contact", count=3)

    assert conference.status is ConferenceStatus.IN_PROGRESS
    assert events(engine) == [
        ("participant-join", moderator.sid),
        ("participant-join", contact.sid),
        ("conference-start", None),
    ]
    join = {name: value for name, value in in_order(engine.got("/conference"))[0].items() if name != "Timestamp"}
    assert join == {
        "AccountSid": ACCOUNT_SID,
        "CallSid": moderator.sid,
        "Coaching": "false",
        "ConferenceSid": conference.sid,
        "EndConferenceOnExit": "true",
        "FriendlyName": "room",
        "Hold": "false",
        "Muted": "false",
        "ParticipantLabel": "moderator",
        "SequenceNumber": "1",
        "StartConferenceOnEnter": "true",
        "StatusCallbackEvent": "participant-join",
    }
    assert engine.got("/others") == []


async def test_nobody_starts_a_conference_who_may_not(engine: Engine) -> None:
    callback = "<Conference startConferenceOnEnter='false' statusCallback='/conference' statusCallbackEvent='join'>"
    waiting = f"<Dial>{callback}room</Conference></Dial>"
    await joined(engine, waiting, path="/first", count=1)

    await joined(engine, waiting, path="/second", count=2)

    assert engine.exchange.conferences()[0].status is ConferenceStatus.INIT
    assert len(engine.exchange.conferences()[0].present) == 2


async def test_a_conference_ends_with_whom_it_depends_on(engine: Engine) -> None:
    moderator, contact = await conferring(engine)

    engine.exchange.hang_up(moderator.sid)

    ended = in_order(await engine.get("/conference", 6))
    assert events(engine)[3:] == [
        ("participant-leave", moderator.sid),
        ("participant-leave", contact.sid),
        ("conference-end", None),
    ]
    assert [each.get("ReasonParticipantLeft") for each in ended[3:5]] == [
        "participant_hung_up",
        "moderator_ended_conference",
    ]
    assert [each.get("ParticipantCallStatus") for each in ended[3:5]] == ["completed", "in-progress"]
    assert ended[5]["ReasonConferenceEnded"] == "participant-with-end-conference-on-exit-left"
    assert ended[5]["CallSidEndingConference"] == moderator.sid
    assert ended[5]["ParticipantLabelEndingConference"] == "moderator"
    assert (await engine.get("/after"))[0]["CallStatus"] == "in-progress"
    left = (await engine.get("/left"))[0]
    assert (left["CallStatus"], left["DialCallStatus"]) == ("completed", "answered")
    conference = engine.exchange.conferences()[0]
    assert (conference.status, conference.present) == (ConferenceStatus.COMPLETED, [])
    assert set(conference.participants) == {moderator.sid, contact.sid}


async def test_a_conference_ends_with_the_last_who_leaves_and_its_name_is_free_again(engine: Engine) -> None:
    moderator, contact = await conferring(engine)
    engine.exchange.update_participant(engine.exchange.conferences()[0].sid, "moderator", end_conference_on_exit=False)
    engine.exchange.hang_up(moderator.sid)
    assert in_order(await engine.get("/conference", 5))[3]["StatusCallbackEvent"] == "participant-modify"

    engine.exchange.hang_up(contact.sid)

    ended = in_order(await engine.get("/conference", 7))[6]
    assert ended["ReasonConferenceEnded"] == "last-participant-left"
    await joined(engine, MODERATOR, path="/moderator", count=8)
    first, second = engine.exchange.conferences()
    assert (first.friendly_name, first.status, second.status) == ("room", "init", "completed")


async def test_the_account_ends_a_conference(engine: Engine) -> None:
    await conferring(engine)
    conference = engine.exchange.conferences()[0]

    engine.exchange.end_conference(conference.sid)
    engine.exchange.end_conference(conference.sid)

    told = in_order(await engine.get("/conference", 6))
    assert [each.get("ReasonParticipantLeft") for each in told[3:5]] == ["conference_ended_via_api"] * 2
    assert told[5]["ReasonConferenceEnded"] == "conference-ended-via-api"
    await engine.settled()
    assert len(engine.got("/conference")) == 6
    with pytest.raises(NotInProgress):
        engine.exchange.announce(conference.sid, engine.url("/announcement"))
    with pytest.raises(NotFound, match="CF0"):
        engine.exchange.end_conference("CF0")


async def test_muting_and_holding_are_told_once_each(engine: Engine) -> None:
    _, contact = await conferring(engine)
    sid = engine.exchange.conferences()[0].sid

    for muted, hold in ((True, None), (True, None), (None, True), (False, False)):
        engine.exchange.update_participant(sid, contact.sid, muted=muted, hold=hold)

    told = in_order(await engine.get("/conference", 7))[3:]
    assert [(each["StatusCallbackEvent"], each["Muted"], each["Hold"]) for each in told] == [
        ("participant-mute", "true", "false"),
        ("participant-hold", "true", "true"),
        ("participant-unmute", "false", "true"),
        ("participant-unhold", "false", "false"),
    ]


async def test_a_kicked_participant_goes_on_with_what_follows(engine: Engine) -> None:
    moderator, contact = await conferring(engine)
    conference = engine.exchange.conferences()[0]

    engine.exchange.remove_participant(conference.sid, contact.sid)

    assert (await engine.get("/after"))[0]["CallStatus"] == "in-progress"
    assert in_order(await engine.get("/conference", 4))[3]["ReasonParticipantLeft"] == "participant_updated_via_api"
    with pytest.raises(NotFound):
        engine.exchange.remove_participant(conference.sid, contact.sid)
    assert engine.exchange.participant(conference.sid, contact.sid).is_present is False

    engine.exchange.remove_participant(conference.sid, "moderator")
    ended = in_order(await engine.get("/conference", 6))[5]
    assert ended["ReasonConferenceEnded"] == "participant-with-end-conference-on-exit-kicked"
    assert (await engine.get("/left"))[0]["CallStatus"] == "in-progress"
    await engine.until(moderator)


async def test_a_redirected_participant_has_left(engine: Engine) -> None:
    _, contact = await conferring(engine)

    engine.exchange.update_call(contact.sid, document="<Response><Pause length='2'/></Response>")

    assert in_order(await engine.get("/conference", 4))[3]["ReasonParticipantLeft"] == "participant_updated_via_api"
    await engine.until(contact)


async def test_an_announcement_is_heard_to_its_end_or_fails(engine: Engine) -> None:
    _, contact = await conferring(engine)
    conference = engine.exchange.conferences()[0]
    heard = engine.answers("/announcement", "<Say>Please stay</Say><Play>http://a.test/b.mp3</Play>")
    engine.answers("/wrong", "<Hangup/>")
    engine.answers("/gone", 404)

    engine.exchange.update_participant(conference.sid, contact.sid, announce=heard)
    told = in_order(await engine.get("/conference", 4))
    engine.exchange.announce(conference.sid, engine.url("/wrong"))
    told = in_order(await engine.get("/conference", 5))
    engine.exchange.announce(conference.sid, engine.url("/gone"))
    told = in_order(await engine.get("/conference", 6))

    assert [each["StatusCallbackEvent"] for each in told[3:]] == ["announcement-end"] + ["announcement-fail"] * 2
    assert (told[3]["AnnounceUrl"], told[3]["CallSid"]) == (heard.url, contact.sid)
    assert "CallSid" not in told[4]
    assert told[5]["ReasonAnnouncementFailed"] == "HTTP retrieval failure: 404"


async def test_of_an_announcement_in_a_conference_that_is_over_nobody_is_told(engine: Engine) -> None:
    moderator, _ = await conferring(engine)
    sid = engine.exchange.conferences()[0].sid
    engine.exchange.announce(sid, engine.answers("/announcement", "<Pause length='10'/>"))

    engine.exchange.hang_up(moderator.sid)

    await engine.get("/conference", 6)
    await engine.settled()
    assert events(engine)[-1] == ("conference-end", None)


def added(engine: Engine, *, phone: Phone, conference: str = "room") -> Participant:
    engine.exchange.phones.put(OTHER_PHONE, phone)
    return engine.exchange.add_participant(
        conference,
        to=OTHER_PHONE,
        from_=OUR_NUMBER,
        base_url=SANDBOX_URL,
        entry=Entry(status_callback=engine.told("/conference", *EVENTS.split()), label="added"),
        status_callback=engine.told("/progress"),
        timeout=5,
    )


async def test_somebody_is_called_into_a_conference(engine: Engine) -> None:
    participant = added(engine, phone=Phone(answers_after_ms=2_000))
    statuses = [participant.status]

    told = (await engine.get("/conference"))[0]

    assert (told["StatusCallbackEvent"], told["CallSid"], told["ParticipantLabel"]) == (
        "participant-join",
        participant.call_sid,
        "added",
    )
    statuses.append(participant.status)
    assert statuses == [ParticipantStatus.QUEUED, ParticipantStatus.CONNECTED]
    second = added(engine, phone=Phone(hangs_up_after_ms=2_000), conference=participant.conference_sid)
    told = in_order(await engine.get("/conference", 4))[3]
    assert (told["StatusCallbackEvent"], told["CallSid"]) == ("participant-leave", second.call_sid)
    engine.exchange.remove_participant(participant.conference_sid, participant.call_sid)
    await engine.until(engine.exchange.call(participant.call_sid))


async def test_somebody_who_is_called_in_vain_never_was_in_it(engine: Engine) -> None:
    participant = added(engine, phone=Phone(Pickup.BUSY))

    told = in_order(await engine.get("/conference", 2))

    assert [each["StatusCallbackEvent"] for each in told] == ["participant-leave", "conference-end"]
    assert (told[0]["ParticipantCallStatus"], told[0]["ReasonParticipantLeft"]) == ("busy", "participant_add_failed")
    assert participant.status is ParticipantStatus.FAILED
    with pytest.raises(NotInProgress):
        added(engine, phone=Phone(), conference=participant.conference_sid)


async def test_somebody_who_still_rings_stops_when_the_conference_ends(engine: Engine) -> None:
    participant = added(engine, phone=Phone(Pickup.NO_ANSWER))
    call = engine.exchange.call(participant.call_sid)
    await engine.until(call, "ringing")

    engine.exchange.end_conference(participant.conference_sid)

    assert call.status == "canceled"
    await engine.settled()
    assert [each["StatusCallbackEvent"] for each in engine.got("/conference")] == ["conference-end"]


async def test_a_redirected_participant_without_a_document_has_one_then(engine: Engine) -> None:
    participant = added(engine, phone=Phone())
    await engine.get("/conference")

    engine.exchange.update_call(participant.call_sid, document=engine.answers("/elsewhere", "<Pause length='2'/>"))

    assert (await engine.get("/elsewhere"))[0]["CallSid"] == participant.call_sid
    await engine.until(engine.exchange.call(participant.call_sid))


async def test_a_conference_misbehaves_as_its_first_participants_call(engine: Engine) -> None:
    moderator = reordered(engine)
    await engine.until_it_does(moderator, "dial")
    contact = engine.call(engine.answers("/contact", CONTACT))
    await engine.until_it_does(contact, "dial")
    await engine.settled()
    assert engine.got("/conference") == []

    engine.exchange.hang_up(moderator.sid)

    told = await engine.get("/conference", 6)
    assert [each["SequenceNumber"] for each in told] == list("654321")


def reordered(engine: Engine) -> Call:
    return engine.call(engine.answers("/moderator", MODERATOR), to=OTHER_PHONE, callbacks=Callbacks.REORDERED)
