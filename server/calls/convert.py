"""Calls, conferences, their participants and voicemails as the API, the stream and webhooks show them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from commonservices.v1 import call_pb2, conference_call_pb2, transcription_pb2, voicemail_pb2

from server.calls import transcript_formats
from server.calls.queries import Call, Recording
from server.calls.state import CONTACT, MODERATOR, CallStatus, is_machine
from server.calls.status import leg_of
from server.calls.tables import CallLegRow, TranscriptRow, VoicemailRow
from server.clock import timestamp

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Problem:
    code: str
    description: str


_RECORDING_ABSENT = _Problem("RECORDING_ABSENT", "The provider recorded nothing.")


async def shown(call: Call, show: Callable[[], _T]) -> _T:
    """What `show` makes of a call: in a thread where something was said in it, which takes so long to show that every
    other request would wait."""
    is_said = any(each.words is not None for each in call.recordings)
    return await asyncio.to_thread(show) if is_said else show()


def call_to_proto(call: Call, *, urls: Mapping[str, str]) -> call_pb2.Call:
    """The one resource of every answer and event. `urls` has the stored recording's, signed, by its storage key."""
    resource = call_without_words(call, urls=urls)
    transcription = _transcription(call.recording)
    if transcription is not None:
        resource.transcription.CopyFrom(transcription)
    return resource


def call_without_words(call: Call, *, urls: Mapping[str, str]) -> call_pb2.Call:
    """The same but for what was said, which takes long to show: a tenth of a second of two hours."""
    row = call.row
    conversation = call.conversation
    problem = _problem(call)
    recording = call.recording
    resource = call_pb2.Call(
        id=row.id,
        uuid=str(row.uuid),
        kind=row.kind,
        client_conversation_id=conversation.client_conversation_id if conversation else None,
        internal_conversation_id=str(conversation.internal_conversation_id) if conversation else None,
        global_id=str(conversation.global_id) if conversation else None,
        internal_status=row.internal_status,
        provider_status=row.provider_status,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        call_sid=call.legs[0].call_sid,
        provider_number=row.provider_number,
        participant_number=row.participant_number,
        recording_duration=_duration(recording),
        recording_url=_url(recording, urls),
        failed_at=timestamp(row.failed_at),
        error_code=problem.code if problem else None,
        error_description=problem.description if problem else None,
        machine_detected=_machine_detected(call),
        bearer_id=row.bearer_id,
        client_call_id=row.client_call_id,
        callback_url=row.callback_url,
    )
    if call.conference is not None:
        resource.conference_call.CopyFrom(conference_call_to_proto(call, urls=urls, nested=True))
    if call.voicemail is not None:
        resource.voicemail.CopyFrom(voicemail_to_proto(call, call.voicemail, urls=urls, nested=True))
    return resource


def conference_call_to_proto(
    call: Call, *, urls: Mapping[str, str], nested: bool
) -> conference_call_pb2.ConferenceCall:
    """The conference, flat. One that is nested in its call does not repeat the transcription."""
    row, conference = call.row, call.conference
    assert conference is not None, "of conferences alone"
    problem = _problem(call)
    recording = call.recording
    duration = _duration(recording)
    return conference_call_pb2.ConferenceCall(
        id=conference.id,
        uuid=str(conference.uuid),
        client_conversation_id=call.conversation.client_conversation_id if call.conversation else None,
        friendly_name=str(conference.uuid),
        twilio_number=row.provider_number,
        moderator_number=row.participant_number,
        participant_numbers=[leg.address for leg in call.legs if leg.kind == CONTACT],
        welcome_message=conference.welcome_message,
        transcription=None if nested else _transcription(recording),
        recording_duration=str(duration) if duration is not None else None,
        error_code=problem.code if problem else None,
        error_description=problem.description if problem else None,
        recording_url=_url(recording, urls),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        call_uuid=str(row.uuid),
        internal_status=row.internal_status,
        provider_status=row.provider_status,
    )


def participant_to_proto(leg: CallLegRow) -> conference_call_pb2.ConferenceCallParticipant:
    """Somebody who is called into a conference."""
    return conference_call_pb2.ConferenceCallParticipant(
        call_sid=leg.call_sid,
        role=leg.kind,
        phone_number=leg.address,
        internal_status=participant_status(leg),
        provider_status=leg.provider_status,
        muted=leg.muted,
        hold=leg.hold,
        machine_detected=is_machine(leg.answered_by),
        joined_at=timestamp(leg.joined_at),
        ended_at=timestamp(leg.ended_at),
        error_code=leg.error_code,
        error_description=leg.error_description,
    )


def participant_status(row: CallLegRow) -> str:
    """`internal_status` of somebody in a conference."""
    leg = leg_of(row)
    if not leg.is_over:
        if leg.has_joined:
            return "joined"
        return "calling" if row.call_sid is not None or row.dial_attempts else "pending"
    if leg.has_joined:
        return "left"
    if leg.has_failed:
        return "failed"
    # Who hung up before they were in it did not come either.
    return "no_answer" if leg.provider_status == "completed" else (leg.provider_status or "canceled").replace("-", "_")


def voicemail_to_proto(
    call: Call, voicemail: VoicemailRow, *, urls: Mapping[str, str], nested: bool
) -> voicemail_pb2.Voicemail:
    """A voicemail. One that is nested in its call does not repeat the transcription."""
    recording = call.voicemail_recording
    return voicemail_pb2.Voicemail(
        id=voicemail.id,
        created_at=timestamp(voicemail.created_at),
        updated_at=timestamp(voicemail.updated_at),
        internal_status=voicemail.internal_status,
        provider_status=recording.row.provider_status if recording else None,
        participant_number=call.row.participant_number,
        caller_id=voicemail.caller_id,
        provider_number=call.row.provider_number,
        recording_url=_url(recording, urls),
        recording_duration=_duration(recording),
        transcription=None if nested else _transcription(recording),
        call_uuid=str(call.row.uuid),
        bearer_id=call.row.bearer_id,
    )


def transcription_to_proto(row: TranscriptRow) -> transcription_pb2.Transcription:
    """What was said, in the five formats."""
    assert row.words is not None, "it is ready"
    rendered = transcript_formats.render(transcript_formats.from_json(row.words))
    return transcription_pb2.Transcription(
        srt=rendered.srt,
        dfxp=rendered.dfxp,
        text=rendered.text,
        webvtt=rendered.webvtt,
        formattedText=rendered.formatted_text,
    )


def _transcription(recording: Recording | None) -> transcription_pb2.Transcription | None:
    words = recording.words if recording is not None else None
    return transcription_to_proto(words) if words is not None else None


def _duration(recording: Recording | None) -> int | None:
    return recording.row.duration if recording is not None else None


def _url(recording: Recording | None, urls: Mapping[str, str]) -> str | None:
    if recording is None or recording.row.storage_key is None:
        return None
    return urls[recording.row.storage_key]


def _machine_detected(call: Call) -> bool | None:
    """Of a conference: whether a machine answered for anybody; of any other call, for the contact."""
    found = [is_machine(leg.answered_by) for leg in call.legs if leg.kind in (MODERATOR, CONTACT)]
    known = [each for each in found if each is not None]
    return any(known) if known else None


def _problem(call: Call) -> _Problem | None:
    """What went wrong with the call, else with its recording, else with what was said in it. That somebody could not be
    called is the call's problem only where it failed for that."""
    row = call.row
    failed = next((leg for leg in call.legs if leg.error_code is not None), None)
    if row.internal_status == CallStatus.FAILED and failed is not None and failed.error_code is not None:
        return _Problem(failed.error_code, failed.error_description or "")
    if call.is_recording_absent:
        return _RECORDING_ABSENT
    recording = call.recording
    if recording is None:
        return None
    if recording.row.internal_status == "absent":
        return _RECORDING_ABSENT
    if recording.row.internal_status == "failed":
        return _Problem("RECORDING_FAILED", recording.row.error_description or "The recording could not be stored.")
    if recording.transcript is not None and recording.transcript.internal_status == "failed":
        return _Problem("TRANSCRIPTION_FAILED", recording.transcript.error_description or "")
    return None
