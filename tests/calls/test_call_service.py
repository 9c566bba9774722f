"""Reading calls and voicemails through the front door: who sees which, with which URLs, and for how long those are."""

import threading
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from commonservices.v1 import call_pb2, file_service_pb2_grpc, voicemail_pb2
from commonservices.v1 import call_service_pb2 as pb

from server.caller import BearerType
from server.calls import convert
from server.calls.parts import CallParts
from server.calls.queries import call_of
from server.calls.recordings.reports import receive_voicemail, update_recording
from server.calls.recordings.transcripts import TranscriptWorker
from server.calls.tables import CallRow
from server.config import Settings
from server.db import Database
from tests.calls.recorded import (
    events_of,
    legs_of,
    make_conference,
    make_direct_call,
    make_return_call,
    recordings,
    report,
    sid,
    voicemails,
    wav,
)
from tests.calls.transcribing import Service, record
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.files.support import request_of, signer_of

UNKNOWN = "00000000-0000-0000-0000-000000000000"


async def get(client: Client, uuid: object) -> call_pb2.Call:
    """The call as the API tells it now."""
    return await client.calls.GetCall(pb.GetCallRequest(uuid=str(uuid)), metadata=client.metadata)


async def url_of(client: Client, uuid: object) -> str:
    """A URL of the call's recording that is asked for by itself."""
    request = pb.GetRecordingUrlRequest(uuid=str(uuid))
    return (await client.calls.GetRecordingUrl(request, metadata=client.metadata)).recording_url


async def voicemail_of(client: Client, voicemail_id: int) -> voicemail_pb2.Voicemail:
    """The voicemail as the API tells it now."""
    request = pb.GetVoicemailRequest(id=voicemail_id)
    return await client.voicemails.GetVoicemail(request, metadata=client.metadata)


async def transcribe(parts: CallParts) -> None:
    """Have what is stored transcribed."""
    worker = TranscriptWorker(
        parts.db, parts.notifications, Service(), parts.storage, callback_url="https://service.example"
    )
    assert await worker.step()


async def fetch(channel: grpc.aio.Channel, url: str) -> tuple[str, bytes]:
    """What FileService has at a URL: its type and all of it."""
    files = file_service_pb2_grpc.FileServiceStub(channel)
    pieces = [piece async for piece in files.GetFile(request_of(url))]
    return pieces[0].content_type, b"".join(piece.data for piece in pieces)


def good_for(url: str) -> timedelta:
    """How long a URL is good for from now on, to the minute."""
    left = datetime.fromtimestamp(request_of(url).expires, UTC) - datetime.now(UTC)
    return timedelta(minutes=round(left.total_seconds() / 60))


@pytest.fixture
async def call(parts: CallParts, db: Database, client: Client) -> CallRow:
    """A browser's call whose recording is stored."""
    call = await make_direct_call(db, client)
    await record(parts, call)
    return call


async def test_call_is_read_as_its_last_event_told_it(parts: CallParts, call: CallRow, client: Client) -> None:
    await transcribe(parts)

    found = await get(client, call.uuid)

    told = (await events_of(parts.db, call.uuid))[-1].call
    for each in (found, told):
        assert each.recording_url
        each.ClearField("recording_url")
    assert found == told
    assert (found.kind, found.internal_status) == ("direct", "transcripted")
    assert found.transcription.text == "Hello, this is school."


async def test_words_are_shown_beside_the_event_loop(parts: CallParts, call: CallRow) -> None:
    async def record_another(parts: CallParts) -> None:
        await record(parts, call)

    threads = []
    for prepare in (None, transcribe, record_another):
        if prepare is not None:
            await prepare(parts)
        async with parts.db.begin() as tx:
            found = await call_of(tx, call)
        threads.append(await convert.shown(found, threading.get_ident))

    assert [each == threading.get_ident() for each in threads] == [True, False, False]


async def test_calls_of_every_kind_are_read(db: Database, client: Client) -> None:
    calls = [await make(db, client) for make in (make_direct_call, make_return_call, make_conference)]

    found = [await get(client, call.uuid) for call in calls]

    assert [each.kind for each in found] == ["direct", "return", "conference"]
    assert [each.id for each in found] == [call.id for call in calls]
    assert [each.bearer_id for each in found] == [client.bearer_id] * 3
    assert [each.call_sid for each in found] == [(await legs_of(db, call))[0].call_sid for call in calls]


@pytest.mark.parametrize("recording", ["no recording", "completed", "absent", "failed"])
async def test_url_is_empty_where_no_recording_is_stored(
    parts: CallParts, db: Database, client: Client, recording: str
) -> None:
    call = await make_direct_call(db, client)
    if recording != "no recording":
        await update_recording(parts, report(call, recording))

    assert await url_of(client, call.uuid) == ""
    assert not (await get(client, call.uuid)).HasField("recording_url")


async def test_url_that_is_asked_for_is_good_for_twelve_hours(
    call: CallRow, client: Client, channel: grpc.aio.Channel
) -> None:
    url = await url_of(client, call.uuid)

    assert good_for(url) == timedelta(hours=12)
    assert await fetch(channel, url) == ("audio/vnd.wave", wav())


async def test_urls_of_calls_and_events_are_good_for_a_day(
    parts: CallParts, call: CallRow, client: Client, channel: grpc.aio.Channel
) -> None:
    told = (await events_of(parts.db, call.uuid))[-1].call

    for url in ((await get(client, call.uuid)).recording_url, told.recording_url):
        assert good_for(url) == timedelta(hours=24)
        assert await fetch(channel, url) == ("audio/vnd.wave", wav())


async def test_url_of_yesterday_is_good_no_more(
    db: Database, call: CallRow, channel: grpc.aio.Channel, settings: Settings
) -> None:
    [row] = await recordings(db)
    url = signer_of(settings).url(row["storage_key"], until=datetime.now(UTC) - timedelta(seconds=1))

    answer = await refused(fetch(channel, url))

    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FILE_URL_INVALID")


async def test_url_is_good_for_its_own_file_alone(
    parts: CallParts, db: Database, call: CallRow, client: Client, channel: grpc.aio.Channel
) -> None:
    other = await make_direct_call(db, client)
    await record(parts, other, data=wav(1))
    mine, theirs = await url_of(client, call.uuid), await url_of(client, other.uuid)
    path, query = theirs.partition("?")[0], mine.partition("?")[2]

    answer = await refused(fetch(channel, f"{path}?{query}"))

    assert answer.reason == "FILE_URL_INVALID"


async def test_voicemail_is_read_with_a_fresh_url_and_what_was_said(
    parts: CallParts, db: Database, client: Client, channel: grpc.aio.Channel
) -> None:
    call = await make_return_call(db, client)
    await record(parts, call)
    await transcribe(parts)
    [row] = await voicemails(db)

    found = await voicemail_of(client, row["id"])

    assert (found.id, found.call_uuid, found.bearer_id) == (row["id"], str(call.uuid), client.bearer_id)
    assert (found.internal_status, found.provider_status) == ("transcripted", "completed")
    assert (found.participant_number, found.caller_id) == (call.participant_number, "+1 206 555 0190")
    assert (found.provider_number, found.recording_duration) == (call.provider_number, 5)
    assert found.transcription.text == "Hello, this is school."
    assert good_for(found.recording_url) == timedelta(hours=24)
    assert await fetch(channel, found.recording_url) == ("audio/vnd.wave", wav())
    assert found.created_at.ToDatetime(tzinfo=UTC) <= found.updated_at.ToDatetime(tzinfo=UTC)
    # Events have it with the call.
    told = (await events_of(db, call.uuid))[-1].call
    assert (told.voicemail.id, told.voicemail.HasField("transcription")) == (row["id"], False)
    assert told.transcription == found.transcription


async def test_voicemail_that_is_not_recorded_yet_has_no_url(db: Database, client: Client) -> None:
    await make_return_call(db, client)
    [row] = await voicemails(db)

    found = await voicemail_of(client, row["id"])

    assert found.internal_status == "pending"
    for name in ("recording_url", "recording_duration", "transcription", "provider_status"):
        assert not found.HasField(name)


async def test_voicemail_of_nothing_has_failed(parts: CallParts, db: Database, client: Client) -> None:
    call = await make_return_call(db, client)
    await receive_voicemail(parts, report(call, "absent", url=None, duration=0))
    [row] = await voicemails(db)

    found = await voicemail_of(client, row["id"])

    assert (found.internal_status, found.provider_status) == ("failed", "absent")
    assert not found.HasField("recording_url")


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_calls_and_voicemails_are_their_bearers_own_and_every_admins(
    parts: CallParts,
    db: Database,
    client_of: MakeClient,
    admin: Client,
    bearer_type: BearerType,
) -> None:
    owner, other = await client_of(bearer_type), await client_of(bearer_type)
    call = await make_return_call(db, owner)
    await record(parts, call)
    [row] = await voicemails(db)

    refusals = [
        await refused(get(other, call.uuid)),
        await refused(url_of(other, call.uuid)),
        await refused(voicemail_of(other, row["id"])),
    ]

    assert [(each.code, each.reason, each.metadata) for each in refusals] == [
        (grpc.StatusCode.NOT_FOUND, "CALL_NOT_FOUND", {"call_uuid": str(call.uuid)}),
        (grpc.StatusCode.NOT_FOUND, "CALL_NOT_FOUND", {"call_uuid": str(call.uuid)}),
        (grpc.StatusCode.NOT_FOUND, "VOICEMAIL_NOT_FOUND", {"voicemail_id": str(row["id"])}),
    ]
    for caller in (owner, admin):
        assert (await get(caller, call.uuid)).id == call.id
        assert await url_of(caller, call.uuid)
        assert (await voicemail_of(caller, row["id"])).id == row["id"]


@pytest.mark.parametrize("uuid", ["", "nonsense", UNKNOWN, "é", "1", "a\0"])
async def test_unknown_call_is_not_found(client: Client, admin: Client, uuid: str) -> None:
    for caller in (client, admin):
        for answer in (await refused(get(caller, uuid)), await refused(url_of(caller, uuid))):
            assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CALL_NOT_FOUND")


@pytest.mark.parametrize("voicemail_id", [0, 1, 2**32 - 1])
async def test_unknown_voicemail_is_not_found(client: Client, admin: Client, voicemail_id: int) -> None:
    for caller in (client, admin):
        answer = await refused(voicemail_of(caller, voicemail_id))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "VOICEMAIL_NOT_FOUND")


async def test_keys_are_asked_for(client: Client, db: Database) -> None:
    call = await make_direct_call(db, client)

    for rpc in (
        client.calls.GetCall(pb.GetCallRequest(uuid=str(call.uuid))),
        client.calls.GetRecordingUrl(pb.GetRecordingUrlRequest(uuid=str(call.uuid))),
        client.voicemails.GetVoicemail(pb.GetVoicemailRequest(id=1)),
    ):
        answer = await refused(rpc)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")


async def test_call_shows_the_last_recording_that_is_stored(
    parts: CallParts, db: Database, call: CallRow, client: Client
) -> None:
    first = await url_of(client, call.uuid)

    await update_recording(parts, report(call, recording_sid=sid("RE")))
    meanwhile = await url_of(client, call.uuid)
    await record(parts, call, data=wav(1))

    assert meanwhile.partition("?")[0] == first.partition("?")[0]
    assert (await url_of(client, call.uuid)).partition("?")[0] != first.partition("?")[0]
