"""Who opts out, by a word or by the provider's refusal, is not sent to until they opt in again."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from commonservices.v1 import message_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.db import Database
from server.messages.callbacks import apply_callback, apply_report
from server.messages.keywords import keyword_of
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers.ports import Keyword, MessageCallback
from server.providers.twilio import statuses
from tests.clients import Client, refused
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.messages.inbound import STRANGER, Texts, opted_out, received
from tests.messages.support import count, events_of, kept_callbacks, make_due, row_of, until, until_settled
from tests.providers.servers import Sandbox

STOP = ("STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT", "OPT_OUT")
START = ("START", "YES", "UNSTOP")
HELP = ("HELP", "INFO")
ORDINARY = ("", "Stop it, please", "stop stop", "opt out", "yes please", "I'll be there at 3", "STOP.", "停止")

# The number to which the sandbox refuses every message with 21610.
UNSUBSCRIBED = "+15005550004"


@pytest.fixture
async def service_id(db: Database, admin: Client) -> int:
    """The messaging service of SENDER."""
    return (await make_messaging_service(db)).row.id


async def other_service(db: Database) -> int:
    """Another messaging service, with a number of its own."""
    made = await make_messaging_service(
        db, name="other", global_customer_id="other", twilio_messaging_sid="MG2", phone_numbers=["+12065550200"]
    )
    return made.row.id


def in_any_case(word: str) -> st.SearchStrategy[str]:
    """A word as people type it."""
    letters = st.tuples(*(st.sampled_from([letter.lower(), letter.upper()]) for letter in word)).map("".join)
    return st.tuples(st.sampled_from(["", " ", "\n\t"]), letters, st.sampled_from(["", " ", "\r\n"])).map("".join)


@given(st.data())
@pytest.mark.parametrize(("words", "keyword"), [(STOP, Keyword.STOP), (START, Keyword.START), (HELP, Keyword.HELP)])
def test_word_in_any_case_is_a_keyword(words: tuple[str, ...], keyword: Keyword, data: st.DataObject) -> None:
    for word in words:
        assert keyword_of(data.draw(in_any_case(word))) is keyword


@pytest.mark.parametrize("text", ORDINARY)
def test_word_within_a_text_is_none(text: str) -> None:
    assert keyword_of(text) is None


@pytest.mark.parametrize("word", [*STOP, "Opt_Out", " stop\n"])
async def test_opt_out_is_kept_beside_the_message_that_asked_for_it(
    texts: Texts, client: Client, db: Database, service_id: int, word: str
) -> None:
    await create_message(client)

    row = await received(db, await texts.send(word))

    [event] = await events_of(db, message_pb2.Message(message_uuid=str(row.message_uuid)))
    answer = await refused(create_message(client))
    assert await opted_out(db) == {(service_id, RECEIVER, "keyword")}
    assert (event.type, event.message.message_body) == ("messages.message.inbound_sms", word)
    assert (row.bearer_id, row.client_conversation_id) == (client.bearer_id, "conversation-1")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RECIPIENT_OPTED_OUT")
    assert answer.metadata == {"receiver_number": RECEIVER}


@pytest.mark.parametrize("word", START)
async def test_opt_in_ends_it_and_changes_nothing_otherwise(
    texts: Texts, client: Client, db: Database, service_id: int, word: str
) -> None:
    await texts.send(word)
    await texts.send("STOP")
    await texts.send("STOP", sender=STRANGER)

    await texts.send(word.lower())
    await texts.send(word)

    assert await opted_out(db) == {(service_id, STRANGER, "keyword")}
    assert (await create_message(client)).internal_status == "pending"
    assert await count(db, "messages WHERE direction = 'inbound'") == 5


@pytest.mark.parametrize("word", HELP)
async def test_help_is_neither(texts: Texts, db: Database, service_id: int, word: str) -> None:
    await texts.send(word)
    before = await opted_out(db)
    await texts.send("STOP")
    await texts.send(word)

    assert (before, len(await opted_out(db))) == (set(), 1)


@pytest.mark.parametrize(
    ("opt_out_type", "text", "is_out"),
    [("STOP", "leave me alone", True), ("START", "STOP", False), ("HELP", "STOP", False), ("LATER", "STOP", True)],
)
async def test_what_the_carrier_took_a_text_for_counts_before_our_reading(
    texts: Texts, db: Database, service_id: int, opt_out_type: str, text: str, is_out: bool
) -> None:
    await texts.send(text, opt_out_type=opt_out_type)

    assert bool(await opted_out(db)) == is_out


async def test_opt_out_is_of_one_messaging_service(texts: Texts, client: Client, db: Database, service_id: int) -> None:
    other_id = await other_service(db)

    await texts.send("STOP", to="+12065550101")
    same_service = await refused(create_message(client))
    await create_message(client, sender_number="+12065550200", client_conversation_id="other")
    await texts.send("STOP", to="+12065550200")
    await texts.send("START")

    assert same_service.reason == "RECIPIENT_OPTED_OUT"
    assert await opted_out(db) == {(other_id, RECEIVER, "keyword")}


async def test_word_to_a_number_that_has_left_its_service_is_of_the_conversations(
    texts: Texts, client: Client, db: Database, service_id: int
) -> None:
    await create_message(client)
    await db.execute("UPDATE twilio_numbers SET messaging_service_id = NULL WHERE phone_number = %(n)s", {"n": SENDER})

    await texts.send("STOP", sender=STRANGER)
    row = await received(db, await texts.send("STOP"))
    stopped = await opted_out(db)
    await texts.send("START")

    assert (row.messaging_service_id, row.client_conversation_id) == (service_id, "conversation-1")
    assert (stopped, await opted_out(db)) == ({(service_id, RECEIVER, "keyword")}, set())


async def test_word_to_a_number_in_no_service_is_of_none(
    texts: Texts, admin: Client, client: Client, db: Database
) -> None:
    assert (await received(db, await texts.send("STOP"))).message_body == "STOP"
    assert (await received(db, await texts.send("START"))).message_body == "START"
    assert await opted_out(db) == set()


async def test_repeated_stop_does_not_undo_a_start(texts: Texts, db: Database, service_id: int) -> None:
    sid = await texts.send("STOP")
    await texts.send("START")

    await texts.send("STOP", sid=sid)

    assert await opted_out(db) == set()


_contacts = (f"+1303555{number:04}" for number in itertools.count(1000))
_texts = st.one_of(
    st.tuples(st.sampled_from(STOP).flatmap(in_any_case), st.none()),
    st.tuples(st.sampled_from(START).flatmap(in_any_case), st.none()),
    st.tuples(st.sampled_from([*HELP, *ORDINARY]), st.none()),
    st.tuples(st.sampled_from([*STOP, *START, *ORDINARY]), st.sampled_from(Keyword)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(_texts, min_size=1, max_size=6))
async def test_after_any_texts_the_last_keyword_decides_whether_sends_are_refused(
    texts: Texts, client: Client, db: Database, service_id: int, told: list[tuple[str, Keyword | None]]
) -> None:
    contact = next(_contacts)
    is_out = False
    for body, opt_out_type in told:
        await texts.send(body, sender=contact, opt_out_type=opt_out_type)

        word = opt_out_type or body.strip().upper()
        is_out = word in STOP or (is_out and word not in START)
        assert ((service_id, contact, "keyword") in await opted_out(db)) == is_out
        sending = create_message(client, receiver_number=contact, client_conversation_id=contact)
        if is_out:
            assert (await refused(sending)).reason == "RECIPIENT_OPTED_OUT"
        else:
            assert (await sending).internal_status == "pending"


def scheduled() -> Timestamp:
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return at


@pytest.mark.parametrize("scheduled_at", [None, scheduled()])
async def test_waiting_message_is_not_sent_after_a_stop(
    texts: Texts,
    admin: Client,
    client: Client,
    db: Database,
    carrier: Sandbox,
    worker: SendWorker,
    scheduled_at: Timestamp | None,
) -> None:
    message = await create_message(client, scheduled_at=scheduled_at)
    await texts.send("STOP")

    await make_due(db)
    await worker.run_once()

    row = await row_of(db, message)
    *_, last = await events_of(db, message)
    assert await carrier.taken() == []
    assert (row.internal_status, row.error_code, row.due_at, row.in_doubt) == (
        "failed",
        "RECIPIENT_OPTED_OUT",
        None,
        False,
    )
    assert (last.message.internal_status, last.message.error_code) == ("failed", "RECIPIENT_OPTED_OUT")
    assert last.message.HasField("failed_at")
    assert last.message.error_description == row.error_description != ""
    assert await worker.run_once() == 0


async def test_waiting_message_is_sent_after_stop_and_start(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client)
    await texts.send("STOP")
    await texts.send("START")

    await worker.run_once()
    await until_settled(db)

    assert (await row_of(db, message)).internal_status == "delivered"


async def test_stop_of_another_service_holds_nothing_back(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await other_service(db)
    message = await create_message(client)
    await texts.send("STOP", to="+12065550200")

    await worker.run_once()

    assert (await row_of(db, message)).message_sid is not None


async def test_message_that_the_carrier_took_before_the_stop_is_found(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body="[sandbox:lost-response][sandbox:callbacks=missing]")
    await worker.run_once()
    in_doubt = await row_of(db, message)
    await texts.send("STOP")

    await make_due(db)
    await worker.run_once()

    row = await row_of(db, message)
    [taken] = await carrier.taken()
    assert (in_doubt.in_doubt, in_doubt.message_sid) == (True, None)
    assert (row.message_sid, row.error_code) == (taken["sid"], None)


async def test_message_in_doubt_that_the_carrier_never_had_is_not_sent(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body="[sandbox:500]")
    await worker.run_once()
    in_doubt = await row_of(db, message)
    await texts.send("STOP")

    await make_due(db)
    await worker.run_once()

    row = await row_of(db, message)
    assert in_doubt.in_doubt
    assert await carrier.taken() == []
    assert (row.internal_status, row.error_code, row.in_doubt) == ("failed", "RECIPIENT_OPTED_OUT", False)


async def test_carriers_refusal_to_send_is_an_opt_out(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, receiver_number=UNSUBSCRIBED)

    await worker.run_once()

    row = await row_of(db, message)
    answer = await refused(create_message(client, receiver_number=UNSUBSCRIBED))
    assert (row.internal_status, row.error_code) == ("failed", "21610")
    assert await opted_out(db) == {(row.messaging_service_id, UNSUBSCRIBED, "provider")}
    assert answer.reason == "RECIPIENT_OPTED_OUT"

    await texts.send("START", sender=UNSUBSCRIBED)

    assert await opted_out(db) == set()


async def test_other_refusals_are_none(
    admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    for text in ("[sandbox:undelivered=30003]", "[sandbox:failed=30007]"):
        await create_message(client, message_body=text)
    await create_message(client, receiver_number="+15005550009", client_conversation_id="landline")

    await worker.run_once()
    await until_settled(db)

    assert await count(db, "messages WHERE internal_status = 'failed'") == 3
    assert await opted_out(db) == set()


async def test_callback_that_the_receiver_is_unsubscribed_is_an_opt_out(
    admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body="[sandbox:undelivered=21610]")

    await worker.run_once()
    await until(lambda: opted_out(db))
    await until_settled(db)

    row = await row_of(db, message)
    assert (row.internal_status, row.error_code) == ("failed", "21610")
    assert await opted_out(db) == {(row.messaging_service_id, RECEIVER, "provider")}


def unsubscribed(message: message_pb2.Message | None = None, *, sid: str = "SM1") -> MessageCallback:
    return MessageCallback(
        report=statuses.report(message_sid=sid, provider_status="undelivered", error_code="21610"),
        message_uuid=None if message is None else UUID(message.message_uuid),
        body="raw",
    )


async def test_callback_that_comes_before_the_sid_is_known_is_an_opt_out_then(
    client: Client, db: Database, notifications: Notifications, service_id: int
) -> None:
    message = await create_message(client)
    await apply_callback(db, notifications, provider="twilio", callback=unsubscribed(), now=datetime.now(UTC))
    before = await opted_out(db)

    accepted = statuses.report(message_sid="SM1", provider_status="accepted", error_code=None)
    row = await row_of(db, message)
    await apply_report(db, notifications, message=row, report=accepted, now=datetime.now(UTC))

    assert before == set()
    assert (await row_of(db, message)).error_code == "21610"
    assert await opted_out(db) == {(service_id, RECEIVER, "provider")}


async def test_repeated_callback_does_not_undo_a_start(
    texts: Texts, client: Client, db: Database, notifications: Notifications, service_id: int
) -> None:
    message = await create_message(client)

    async def apply() -> None:
        await apply_callback(
            db, notifications, provider="twilio", callback=unsubscribed(message), now=datetime.now(UTC)
        )

    await apply()
    before = await opted_out(db)
    await texts.send("START", to=SENDER)
    await apply()

    assert before == {(service_id, RECEIVER, "provider")}
    assert await opted_out(db) == set()
    assert len(await kept_callbacks(db)) == 2


@pytest.mark.parametrize("before", [[], ["STOP"]])
async def test_refusal_of_a_message_from_before_a_start_is_out_of_date(
    texts: Texts, client: Client, db: Database, notifications: Notifications, service_id: int, before: list[str]
) -> None:
    old = await create_message(client)
    for text in [*before, "START"]:
        await texts.send(text)
    new = await create_message(client)

    late = unsubscribed(old)
    await apply_callback(db, notifications, provider="twilio", callback=late, now=datetime.now(UTC))
    after_the_late_one = await opted_out(db)
    assert (await row_of(db, old)).error_code == "21610"
    anew = unsubscribed(new, sid="SM2")
    await apply_callback(db, notifications, provider="twilio", callback=anew, now=datetime.now(UTC))

    assert after_the_late_one == set()
    assert await opted_out(db) == {(service_id, RECEIVER, "provider")}


async def test_scheduled_message_that_was_sent_after_a_start_may_be_refused(
    texts: Texts, client: Client, db: Database, notifications: Notifications, service_id: int
) -> None:
    message = await create_message(client, scheduled_at=scheduled())
    await texts.send("START")
    await db.execute("UPDATE messages SET first_claimed_at = now() WHERE direction = 'outbound'")

    callback = unsubscribed(message)
    await apply_callback(db, notifications, provider="twilio", callback=callback, now=datetime.now(UTC))

    assert await opted_out(db) == {(service_id, RECEIVER, "provider")}


async def test_start_and_an_old_refusal_at_once_end_with_the_start(
    texts: Texts, client: Client, db: Database, notifications: Notifications, service_id: int
) -> None:
    for n in range(10):
        contact = next(_contacts)
        message = await create_message(client, receiver_number=contact, client_conversation_id=contact)
        refusal = unsubscribed(message, sid=f"SM{n}")
        at_once = [
            apply_callback(db, notifications, provider="twilio", callback=refusal, now=datetime.now(UTC)),
            texts.send("START", sender=contact),
        ]
        await asyncio.gather(*(at_once if n % 2 else reversed(at_once)))

        assert await opted_out(db) == set()
