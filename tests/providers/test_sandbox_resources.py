"""The sandbox's resources as the official SDK reads them, and their shapes beside those of Twilio's reference."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.servers import (
    ACCOUNT_SID,
    MESSAGES,
    Receiver,
    Sandbox,
    running_sandbox,
)
from tests.providers.test_twilio_adapter import documented_message

NUMBERS = f"/2010-04-01/Accounts/{ACCOUNT_SID}/IncomingPhoneNumbers.json"


def shape(value: Any) -> Any:
    """Keys and JSON types; null stands for any of them."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return type(value).__name__


def fits(value: Any, documented: Any) -> bool:
    if isinstance(documented, dict) and isinstance(value, dict):
        return value.keys() == documented.keys() and all(fits(value[key], documented[key]) for key in value)
    return value is None or documented is None or type(value) is type(documented)


async def test_message_has_the_documented_shape(sandbox: Sandbox) -> None:
    _, created = await sandbox.create()

    assert fits(created, documented_message()), shape(created)


async def test_list_of_messages_has_the_documented_shape(sandbox: Sandbox) -> None:
    await sandbox.create()

    _, listed = await sandbox.rest("GET", f"{MESSAGES}?PageSize=1")

    (message,) = listed.pop("messages")
    assert fits(message, documented_message())
    assert listed == {
        "end": 0,
        "first_page_uri": f"{MESSAGES}?Page=0&PageSize=1",
        "next_page_uri": None,
        "page": 0,
        "page_size": 1,
        "previous_page_uri": None,
        "start": 0,
        "uri": f"{MESSAGES}?Page=0&PageSize=1",
    }


async def test_sdk_pages_through_messages_newest_first(sandbox: Sandbox, twilio: TwilioClient) -> None:
    sids = [(await sandbox.create(Body=str(number)))[1]["sid"] for number in range(7)]
    await sandbox.create(To="+14155550199")

    listed = await twilio.messages.list_async(to="+14155550123", page_size=3)

    assert [message.sid for message in listed] == sids[::-1]


async def test_new_messages_do_not_shift_pages(sandbox: Sandbox) -> None:
    sids = [(await sandbox.create())[1]["sid"] for _ in range(4)]
    _, first = await sandbox.rest("GET", f"{MESSAGES}?PageSize=2")
    await sandbox.create()

    _, second = await sandbox.rest("GET", first["next_page_uri"])

    assert [message["sid"] for page in (first, second) for message in page["messages"]] == sids[::-1]
    assert second["next_page_uri"] is None
    assert second["previous_page_uri"] == f"{MESSAGES}?Page=0&PageSize=2"


async def test_messages_are_filtered_by_sender(sandbox: Sandbox, twilio: TwilioClient) -> None:
    await sandbox.create()
    _, wanted = await sandbox.create(From="+15125550109")

    listed = await twilio.messages.list_async(from_="+15125550109")

    assert [message.sid for message in listed] == [wanted["sid"]]


async def test_messages_are_filtered_by_the_date_they_were_sent(receiver: Receiver) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    async with running_sandbox(now=lambda: noon) as sandbox:
        await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")
        await receiver.next_statuses(2)
        found = {
            query: len((await sandbox.rest("GET", MESSAGES, params=dict([query])))[1]["messages"])
            for query in (
                ("DateSent", "2024-05-01"),
                ("DateSent", "2024-05-02"),
                ("DateSent>", "2024-05-01T11:00:00Z"),
                ("DateSent>", "2024-05-01T13:00:00Z"),
                ("DateSent<", "2024-05-01T13:00:00Z"),
                ("DateSent<", "2024-05-01T11:00:00Z"),
            )
        }

    assert list(found.values()) == [1, 0, 1, 0, 1, 0]


async def test_message_that_waits_has_no_date_to_be_found_by(twilio: TwilioClient) -> None:
    await scheduled(twilio)

    assert len(await twilio.messages.list_async()) == 1
    assert await twilio.messages.list_async(date_sent_after=datetime(2000, 1, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize(
    ("body", "media", "kind", "segments"),
    [
        ("a" * 160, None, "SM", "1"),
        ("a" * 161, None, "SM", "2"),
        ("a" * 306, None, "SM", "2"),
        ("ж" * 70, None, "SM", "1"),
        ("ж" * 71, None, "SM", "2"),
        ("😀" * 35, None, "SM", "1"),
        ("😀" * 36, None, "SM", "2"),
        ("a" * 500, "https://media.example/1.jpg", "MM", "1"),
    ],
)
async def test_text_is_split_as_on_the_air(
    sandbox: Sandbox, body: str, media: str | None, kind: str, segments: str
) -> None:
    _, created = await sandbox.create(Body=body, MediaUrl=media)

    assert (created["sid"][:2], created["num_segments"]) == (kind, segments)


async def test_long_text_sent_as_mms_is_one(sandbox: Sandbox) -> None:
    _, created = await sandbox.create(Body="a" * 500, SendAsMms="true")

    assert (created["sid"][:2], created["num_segments"], created["num_media"]) == ("MM", "1", "0")


async def test_finished_message_is_redacted_then_deleted(
    sandbox: Sandbox, receiver: Receiver, twilio: TwilioClient
) -> None:
    _, created = await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")
    await receiver.next_statuses(2)

    redacted = await twilio.messages(created["sid"]).update_async(body="")
    assert (redacted.status, redacted.body) == ("delivered", "")

    assert await twilio.messages(created["sid"]).delete_async()
    with pytest.raises(Refusal, match="20404"):
        await twilio.messages(created["sid"]).fetch_async()


async def scheduled(twilio: TwilioClient) -> str:
    created = await twilio.messages.create_async(
        to="+14155550123",
        messaging_service_sid=MESSAGING_SERVICE_SID,
        body="later",
        schedule_type="fixed",
        send_at=datetime.now(UTC) + timedelta(hours=1),
    )
    assert created.status == "scheduled"
    return str(created.sid)


async def test_scheduled_message_is_canceled_once(twilio: TwilioClient) -> None:
    sid = await scheduled(twilio)

    canceled = await twilio.messages(sid).update_async(status="canceled")

    assert canceled.status == "canceled"
    with pytest.raises(Refusal, match="30409"):
        await twilio.messages(sid).update_async(status="canceled")


@pytest.mark.parametrize("update", [{"body": ""}, {"body": "other words"}])
async def test_message_under_way_is_not_changed(twilio: TwilioClient, update: dict[str, str]) -> None:
    sid = await scheduled(twilio)

    with pytest.raises(Refusal):
        await twilio.messages(sid).update_async(**update)
    with pytest.raises(Refusal, match="20009"):
        await twilio.messages(sid).delete_async()


async def test_account_owns_its_twenty_numbers(twilio: TwilioClient) -> None:
    listed = await twilio.incoming_phone_numbers.list_async(page_size=7)

    assert [number.phone_number for number in listed] == list(OWNED_NUMBERS)
    assert OWNED_NUMBERS[0] == "+12065550100"
    assert OWNED_NUMBERS[-1] == "+15125550109"
    fetched = await twilio.incoming_phone_numbers(listed[3].sid).fetch_async()
    assert fetched.phone_number == "+12065550103"
    assert fetched.capabilities["sms"]


@pytest.mark.parametrize(
    ("wanted", "count"), [("+12065550104", 1), ("+1512", 10), ("5550*07", 2), ("+1303", 0), ("", 20)]
)
async def test_numbers_are_found_by_a_part(twilio: TwilioClient, wanted: str, count: int) -> None:
    assert len(await twilio.incoming_phone_numbers.list_async(phone_number=wanted)) == count


async def test_number_has_the_documented_keys(sandbox: Sandbox) -> None:
    _, listed = await sandbox.rest("GET", f"{NUMBERS}?PageSize=1")

    assert sorted(listed["incoming_phone_numbers"][0]) == sorted(
        [
            "account_sid",
            "address_requirements",
            "address_sid",
            "api_version",
            "beta",
            "bundle_sid",
            "capabilities",
            "date_created",
            "date_updated",
            "emergency_address_sid",
            "emergency_status",
            "friendly_name",
            "identity_sid",
            "origin",
            "phone_number",
            "sid",
            "sms_application_sid",
            "sms_fallback_method",
            "sms_fallback_url",
            "sms_method",
            "sms_url",
            "status",
            "status_callback",
            "status_callback_method",
            "trunk_sid",
            "uri",
            "voice_application_sid",
            "voice_caller_id_lookup",
            "voice_fallback_method",
            "voice_fallback_url",
            "voice_method",
            "voice_url",
        ]
    )


async def test_lookup_tells_the_type_of_a_line(sandbox: Sandbox, twilio: TwilioClient) -> None:
    await sandbox.control("PUT", "handsets/+14155550124", json={"line_type": "landline"})

    found = [
        (await twilio.lookups.v2.phone_numbers(number).fetch_async(fields="line_type_intelligence"))
        for number in ("+14155550123", "+14155550124", "+12065550100")
    ]

    assert [each.line_type_intelligence["type"] for each in found] == ["mobile", "landline", "nonFixedVoip"]
    assert (found[0].valid, found[0].country_code, found[0].national_format) == (True, "US", "(415) 555-0123")


async def test_lookup_tells_only_what_was_asked(twilio: TwilioClient) -> None:
    found = await twilio.lookups.v2.phone_numbers("+14155550123").fetch_async()

    assert found.line_type_intelligence is None


async def test_lookup_of_an_impossible_number_says_so(twilio: TwilioClient) -> None:
    found = await twilio.lookups.v2.phone_numbers("+1415").fetch_async(fields="line_type_intelligence")

    assert (found.valid, found.validation_errors, found.line_type_intelligence) == (False, ["INVALID_LENGTH"], None)


async def test_local_messaging_service_holds_all_numbers(twilio: TwilioClient) -> None:
    (service,) = await twilio.messaging.v1.services.list_async()
    fetched = await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).fetch_async()
    numbers = await fetched.phone_numbers.list_async(page_size=6)

    assert (service.sid, service.friendly_name, fetched.sid) == (MESSAGING_SERVICE_SID, "local", service.sid)
    assert [number.phone_number for number in numbers] == list(OWNED_NUMBERS)
    assert numbers[0].capabilities == ["MMS", "SMS", "Voice"]


async def test_list_of_services_has_the_documented_meta(sandbox: Sandbox) -> None:
    _, listed = await sandbox.rest("GET", "/v1/Services")

    url = f"{sandbox.base_url}/v1/Services?Page=0&PageSize=50"
    assert listed["meta"] == {
        "first_page_url": url,
        "key": "services",
        "next_page_url": None,
        "page": 0,
        "page_size": 50,
        "previous_page_url": None,
        "url": url,
    }


async def test_number_leaves_and_joins_a_service(twilio: TwilioClient) -> None:
    numbers = twilio.messaging.v1.services(MESSAGING_SERVICE_SID).phone_numbers
    sid = phone_number_sid("+12065550100")
    assert await numbers(sid).delete_async()
    with pytest.raises(Refusal, match="20404"):
        await numbers(sid).fetch_async()

    joined = await numbers.create_async(phone_number_sid=sid)

    assert joined.phone_number == "+12065550100"
    with pytest.raises(Refusal, match="21710"):
        await numbers.create_async(phone_number_sid=sid)
    with pytest.raises(Refusal, match="20404"):
        await numbers.create_async(phone_number_sid="PN" + "0" * 32)
