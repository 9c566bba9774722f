"""What Zoom's events say, in the shapes of its reference, and what is left of them in others."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import CallbackMalformed
from server.providers.video_ports import RecordingFile, VideoEvent, VideoUser
from tests.providers.test_zoom_webhook import NOW, read

SESSION_ID = "/gr8+Gh/SkCp2x4Hg4LyPg=="
SESSION_KEY = UUID("0198c8a4-2b1c-7000-8000-000000000001")
USER_KEY = UUID("0198c8a4-2b1c-7000-8000-0000000000ff")
START_TIME = datetime(2021, 7, 13, 21, 44, 51, tzinfo=UTC)
AT = datetime(2021, 7, 14, 2, 44, 51, 572_000, tzinfo=UTC)

# Every type of zoom/rivet-javascript's videosdk.d.ts, and some that came later or never will.
BARE_EVENTS = [
    "session.alert",
    "session.live_streaming_started",
    "session.live_streaming_stopped",
    "session.recording_deleted",
    "session.recording_paused",
    "session.recording_recovered",
    "session.recording_resumed",
    "session.recording_started",
    "session.recording_stopped",
    "session.recording_transcript_failed",
    "session.recording_trashed",
    "session.started",
    "session.stream_ingestion_connected",
    "session.stream_ingestion_disconnected",
    "session.stream_ingestion_started",
    "session.stream_ingestion_stopped",
    "session.stream_ingestion_unbind",
    "session.user_phone_callout_accepted",
    "session.user_phone_callout_canceled",
    "session.user_phone_callout_missed",
    "session.user_phone_callout_rejected",
    "session.user_phone_callout_ringing",
    "session.user_room_system_callout_accepted",
    "session.user_room_system_callout_failed",
    "session.user_room_system_callout_missed",
    "session.user_room_system_callout_rejected",
    "session.user_room_system_callout_ringing",
    "session.unheard_of",
    "something.else",
]


def event(body: dict[str, Any]) -> VideoEvent:
    read_event = read(json.dumps(body).encode())
    assert isinstance(read_event, VideoEvent)
    return read_event


def body(name: str = "session.started", *, session: dict[str, Any] | None = None, **over: Any) -> dict[str, Any]:
    """An event in the shape of the reference, about our session."""
    told = {
        "id": SESSION_ID,
        "session_id": SESSION_ID,
        "session_name": "My Session",
        "session_key": SESSION_KEY.hex,
        "start_time": "2021-07-13T21:44:51Z",
    }
    payload = {"account_id": "AAAAAABBBB", "object": told | (session or {})}
    return {"event": name, "event_ts": 1626230691572, "payload": payload} | over


def expected(name: str = "session.started", **over: Any) -> VideoEvent:
    bare = VideoEvent(
        name=name,
        occurred_at=AT,
        session_id=SESSION_ID,
        session_key=SESSION_KEY,
        session_name="My Session",
        start_time=START_TIME,
        end_time=None,
        user=None,
        files=(),
        download_token=None,
    )
    return replace(bare, **over)


@pytest.mark.parametrize("name", BARE_EVENTS)
def test_event_names_its_session(name: str) -> None:
    extras = {
        "timezone": "America/Los_Angeles",
        "host_id": "host",
        "issues": ["Unstable audio quality"],
        "participant": {"invitee_name": "Jill Chill", "phone_number": 15555550100, "from_number": 13167900000},
        "recording_file": {"recording_start": "2021-07-13T21:45:00Z", "recording_end": ""},
        "live_streaming": {"service": "YouTube", "date_time": "2021-07-13T21:45:00Z"},
    }

    assert event(body(name, session=extras)) == expected(name)


def test_ended_session_has_an_end() -> None:
    told = event(body("session.ended", session={"end_time": "2021-07-13T22:44:51Z"}))

    assert told == expected("session.ended", end_time=START_TIME + timedelta(hours=1))


def test_user_joins_with_the_key_of_our_token() -> None:
    user = {
        "id": "16778240",
        "name": "Jill Chill",
        "join_time": "2021-07-13T21:44:59Z",
        "user_key": USER_KEY.hex,
        "phone_number": "8615250064084",
        "participant_uuid": "55555AAAiAAAAAiAiAiiAii==",
    }

    assert event(body("session.user_joined", session={"user": user})).user == VideoUser(
        user_id="16778240",
        user_key=USER_KEY,
        name="Jill Chill",
        join_time=START_TIME + timedelta(seconds=8),
        leave_time=None,
        leave_reason=None,
    )


def test_user_leaves_for_a_reason() -> None:
    user = {
        "id": "16778240",
        "name": "Jill Chill",
        "leave_time": "2021-07-13T21:45:51Z",
        "leave_reason": "Jill Chill left the session.<br>Reason: Host ended the session.",
        "user_key": str(USER_KEY),
    }

    assert event(body("session.user_left", session={"user": user})).user == VideoUser(
        user_id="16778240",
        user_key=USER_KEY,
        name="Jill Chill",
        join_time=None,
        leave_time=START_TIME + timedelta(minutes=1),
        leave_reason="Jill Chill left the session.<br>Reason: Host ended the session.",
    )


def test_who_shares_is_a_user_who_neither_joins_nor_leaves() -> None:
    sharing = {"content": "application", "date_time": "2021-07-13T21:45:51Z"}
    user = {"id": 16778240, "name": "Jill Chill", "user_key": "key1", "sharing_details": sharing}

    told = event(body("session.sharing_started", session={"user": user})).user

    assert told == VideoUser("16778240", None, "Jill Chill", None, None, None)


FILE_ID = "ed6c2f27-2ae7-42f4-b3d0-835b493e4fa8"
DOWNLOAD_TOKEN = "abJhbGciOiJIUzUxMiJ9.eyJpc3MiOiJodHRwczovL2V2ZW50Lnpvb20udXMifQ.a6KetiC6-BlkDhf1dP4KBGUE_1bb2brM"


def file(**over: Any) -> dict[str, Any]:
    """A file in the shape of the reference; None leaves a field out."""
    told = {
        "id": FILE_ID,
        "recording_start": "2021-03-23T22:14:57Z",
        "recording_end": "2021-03-23T23:15:41Z",
        "file_name": "MyRecording",
        "file_type": "M4A",
        "file_size": 246560,
        "file_extension": "M4A",
        "download_url": "https://example.com/recording/download/Qg75t7xZBtEbAkjdlgbfdngBBBB",
        "status": "completed",
        "recording_type": "audio_only",
    } | over
    return {name: value for name, value in told.items() if value is not None}


AUDIO = RecordingFile(
    file_id=FILE_ID,
    file_type="M4A",
    file_extension="M4A",
    recording_type="audio_only",
    file_size=246560,
    recording_start=datetime(2021, 3, 23, 22, 14, 57, tzinfo=UTC),
    recording_end=datetime(2021, 3, 23, 23, 15, 41, tzinfo=UTC),
    url="https://example.com/recording/download/Qg75t7xZBtEbAkjdlgbfdngBBBB",
)


def files(*told: object, **lists: object) -> tuple[RecordingFile, ...]:
    return event(body("session.recording_completed", session={"recording_files": list(told)} | lists)).files


def test_completed_recording_has_the_files_of_all_lists_and_a_token() -> None:
    whose = {"user_id": "16778240", "user_key": "key1"}
    video = {
        "id": "0a564312",
        "file_type": "MP4",
        "file_extension": "MP4",
        "recording_type": "individual_shared_screen",
    }
    lists = {
        "recording_files": [file()],
        # With the id of another, as in the reference's example.
        "participant_audio_files": [file(file_extension="MP4", **whose)],
        "participant_video_files": [file(**video, **whose, play_url="https://example.com/play")],
    }

    told = event(body("session.recording_completed", session=lists, download_token=DOWNLOAD_TOKEN))

    assert told == expected(
        "session.recording_completed",
        files=(
            AUDIO,
            replace(AUDIO, file_id=f"{FILE_ID} 2", file_extension="MP4"),
            replace(
                AUDIO,
                file_id="0a564312",
                file_type="MP4",
                file_extension="MP4",
                recording_type="individual_shared_screen",
            ),
        ),
        download_token=DOWNLOAD_TOKEN,
    )


def test_files_of_one_id_are_told_apart_the_same_way_each_time() -> None:
    assert [told.file_id for told in files(file(), file(), file(id=f"{FILE_ID} 2"))] == [
        FILE_ID,
        f"{FILE_ID} 2",
        f"{FILE_ID} 2 2",
    ]


@pytest.mark.parametrize("name", ["session.recording_transcript_completed", "session.recording_summary_completed"])
def test_transcript_and_summary_are_files_like_others(name: str) -> None:
    transcript = file(id="t1", file_type="TRANSCRIPT", file_extension="VTT", recording_type="audio_transcript")

    told = event(body(name, session={"recording_files": [transcript]}, download_token=DOWNLOAD_TOKEN))

    assert (told.name, told.download_token) == (name, DOWNLOAD_TOKEN)
    assert [(each.file_id, each.file_type, each.file_extension) for each in told.files] == [("t1", "TRANSCRIPT", "VTT")]


def test_file_in_a_store_of_the_account_has_no_url() -> None:
    told = file(download_url=None, external_storage_url="https://bucket.s3.amazonaws.com/cmr/byos/recording.m4a")

    assert files(told) == (replace(AUDIO, url=None),)


def test_timeline_without_an_id_is_known_by_what_it_is() -> None:
    timeline = file(id=None, file_type="TIMELINE", file_extension="JSON", recording_type="timeline")

    assert [told.file_id for told in files(timeline, timeline)] == [
        "TIMELINE timeline 2021-03-23T22:14:57Z",
        "TIMELINE timeline 2021-03-23T22:14:57Z 2",
    ]


def test_file_says_as_much_as_it_says() -> None:
    bare = RecordingFile("f1", "UNKNOWN", None, None, None, None, None, None)

    assert files({"id": "f1"}) == (bare,)
    assert files({"id": "f1", "file_extension": "TXT"}) == (replace(bare, file_type="TXT", file_extension="TXT"),)
    assert files({"download_url": "https://a.example/f"}) == (
        replace(bare, file_id="UNKNOWN", url="https://a.example/f"),
    )


@pytest.mark.parametrize("nothing", [None, {}, [], 7, "f1", {"file_type": "MP4"}, {"id": ""}, {"id": "a\0"}])
def test_what_is_no_file_is_left_out(nothing: object) -> None:
    assert files(nothing, file(), nothing) == (AUDIO,)
    assert files(participant_audio_files=nothing) == ()


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, 0),
        (5 * 2**30, 5 * 2**30),
        (246560.0, 246560),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (float(2**63), None),
        (-1, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        ("246560", None),
        ([], None),
    ],
)
def test_size_is_one_that_a_row_can_hold(size: object, told: int | None) -> None:
    assert files(file(file_size=size)) == (replace(AUDIO, file_size=told),)


@pytest.mark.parametrize("session_id", [SESSION_ID, "+a/b==", "//", "4444AAAiAAAAAiAiAiiAii=="])
def test_session_id_is_as_it_is(session_id: str) -> None:
    assert event(body(session={"session_id": session_id})).session_id == session_id


def test_session_id_that_is_a_number_is_a_text() -> None:
    # As in the reference's example.
    assert event(body(session={"session_id": 1234567890})).session_id == "1234567890"


@pytest.mark.parametrize("session_id", [None, "", True, 1.5, 2**63, [], {}, "a\0b", "\ud83d", "x" * 256])
def test_session_id_that_no_row_can_hold_is_left_out(session_id: object) -> None:
    assert event(body(session={"session_id": session_id})) == expected(session_id=None)


@pytest.mark.parametrize("key", [SESSION_KEY.hex, SESSION_KEY.hex.upper(), str(SESSION_KEY), str(SESSION_KEY).upper()])
def test_key_is_read_in_both_forms(key: str) -> None:
    assert event(body(session={"session_key": key})).session_key == SESSION_KEY


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "ABC36jaBI145",
        f"urn:{SESSION_KEY.hex}",
        f"{{{SESSION_KEY}}}",
        SESSION_KEY.hex + "\n",
        SESSION_KEY.hex[1:],
        f"0x{SESSION_KEY.hex[2:]}",
        f"{SESSION_KEY.hex[:16]}_{SESSION_KEY.hex[17:]}",
        "١" * 32,
        SESSION_KEY.int,
        [SESSION_KEY.hex],
    ],
)
def test_key_of_somebody_else_is_none_of_ours(key: object) -> None:
    assert event(body(session={"session_key": key})) == expected(session_key=None)


@pytest.mark.parametrize(
    ("event_ts", "occurred_at"),
    [
        (1626230691572, AT),
        (1626230691, AT.replace(microsecond=0)),
        (1626230691.572, AT),
        (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (253402300799999, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_time_of_the_event_is_told_in_milliseconds_or_seconds(event_ts: float, occurred_at: datetime) -> None:
    assert event(body(event_ts=event_ts)).occurred_at == occurred_at


@pytest.mark.parametrize(
    "event_ts", [None, 0, -1, True, "1626230691572", [], 253402300800000, 10**30, 1e308, float("nan"), float("inf")]
)
def test_event_without_a_time_was_when_it_was_sent(event_ts: object) -> None:
    assert event(body(event_ts=event_ts)).occurred_at == NOW


@pytest.mark.parametrize(
    ("start_time", "told"),
    [
        ("2021-07-13T21:44:51Z", START_TIME),
        ("2021-07-13T21:44:51.250Z", START_TIME + timedelta(milliseconds=250)),
        ("2021-07-13T14:44:51-07:00", START_TIME),
        ("2021-07-13T21:44:51", START_TIME),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2021-13-13T21:44:51Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1626230691572, None),
        ({}, None),
    ],
)
def test_times_are_of_utc_or_left_out(start_time: object, told: datetime | None) -> None:
    assert event(body(session={"start_time": start_time})) == expected(start_time=told)


def test_texts_keep_all_that_a_row_can_hold() -> None:
    user = {"id": "1", "name": "J\0ll \ud83d Chill 😀", "leave_reason": "\0"}

    told = event(body(session={"session_name": "My\0Session", "user": user}))

    assert told.session_name == "My\ufffdSession"
    assert told.user is not None
    assert (told.user.name, told.user.leave_reason) == ("J\ufffdll \ufffd Chill 😀", "\ufffd")


@pytest.mark.parametrize("user", [None, [], "Jill", {}, {"name": "Jill"}, {"id": ""}, {"id": "a\0"}, {"id": None}])
def test_user_without_an_id_is_left_out(user: object) -> None:
    assert event(body(session={"user": user})) == expected()


def test_user_without_a_name_has_an_empty_one() -> None:
    assert event(body(session={"user": {"id": "1"}})).user == VideoUser("1", None, "", None, None, None)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nHost: b", "ü", "a\0", 7, None, [DOWNLOAD_TOKEN]])
def test_token_that_no_header_can_hold_is_left_out(token: object) -> None:
    assert event(body(download_token=token)) == expected()


@pytest.mark.parametrize("payload", [None, 7, "x", [], {}, {"object": None}, {"object": [1]}, {"object": {}}])
def test_event_about_nothing_is_an_event(payload: object) -> None:
    nothing = VideoEvent("session.started", AT, None, None, None, None, None, None, (), None)

    assert event(body(payload=payload)) == nothing


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=40),
    lambda within: st.lists(within, max_size=4) | st.dictionaries(st.text(max_size=8), within, max_size=4),
    max_leaves=12,
)
somehow = anything | st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=14)))).map(str)


def shaped(**named: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, each of them as it may be or anything else; or no object at all."""
    return anything | st.fixed_dictionaries({}, optional={name: value | somehow for name, value in named.items()})


some_user = shaped(id=anything, name=anything, join_time=anything, leave_time=anything, user_key=st.uuids().map(str))
some_file = shaped(
    id=anything,
    file_type=anything,
    file_extension=anything,
    file_size=anything,
    recording_start=anything,
    recording_end=anything,
    recording_type=anything,
    download_url=anything,
)
some_session = shaped(
    session_id=anything,
    session_key=st.uuids().map(lambda key: key.hex),
    session_name=anything,
    start_time=anything,
    end_time=anything,
    user=some_user,
    recording_files=st.lists(some_file, max_size=3),
    participant_audio_files=st.lists(some_file, max_size=3),
    participant_video_files=st.lists(some_file, max_size=3),
)
some_body = shaped(
    event=st.sampled_from([*BARE_EVENTS, "endpoint.url_validation"]),
    event_ts=st.integers() | st.floats(),
    download_token=anything,
    payload=shaped(object=some_session, plainToken=anything),
)


def texts(told: object) -> list[str]:
    """Every text of what was read."""
    if isinstance(told, str):
        return [told]
    if isinstance(told, tuple):
        return [text for each in told for text in texts(each)]
    if isinstance(told, VideoEvent | VideoUser | RecordingFile):
        return [text for field in fields(told) for text in texts(getattr(told, field.name))]
    return []


def times(told: object) -> list[datetime]:
    """Every time of what was read."""
    if isinstance(told, datetime):
        return [told]
    if isinstance(told, tuple):
        return [time for each in told for time in times(each)]
    if isinstance(told, VideoEvent | VideoUser | RecordingFile):
        return [time for field in fields(told) for time in times(getattr(told, field.name))]
    return []


@given(some_body)
def test_any_json_is_malformed_or_something_that_rows_can_hold(any_json: object) -> None:
    with suppress(CallbackMalformed):
        told = read(json.dumps(any_json).encode())

        assert all("\0" not in text and text.encode() for text in texts(told) if text)
        assert all(time.utcoffset() == timedelta(0) for time in times(told))
        if isinstance(told, VideoEvent):
            assert len({each.file_id for each in told.files}) == len(told.files)
            assert told == read(json.dumps(any_json).encode())
