"""Makes and changes calls through one Twilio account, or through the sandbox, which speaks the same protocol."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

from twilio.base.exceptions import TwilioException

from server.providers.http import NoAnswer, NotReached
from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.client import Refusal, TwilioClient
from server.providers.twilio.failures import change_failure, create_failure, says_there_is_none, unavailable
from server.providers.twilio.voice_urls import VoiceUrls
from server.providers.voice_ports import CallGone, LegReport, OutboundCall, RecordingReport

if TYPE_CHECKING:
    from twilio.rest.api.v2010.account.call import CallInstance
    from twilio.rest.api.v2010.account.call.recording import RecordingInstance, RecordingList

_PROGRESS = ("initiated", "ringing", "answered", "completed")

# Twilio's times are whole seconds of its own clock.
_CLOCK_SLACK = timedelta(minutes=1)

_PAGE_SIZE = 100

# The call is not in progress: what was to be changed is over.
_NOT_IN_PROGRESS = 21220

# What becomes of a recording; one that is `paused`, `stopped` or `processing` is not ready yet.
_RECORDING_OUTCOMES = frozenset({"completed", "absent", "failed"})
_NOT_READY = "in-progress"


class TwilioVoiceCalls:
    """voice_ports.VoiceCalls over Twilio's Calls, Participants and Recordings; made inside a running event loop."""

    def __init__(
        self,
        account: TwilioAccount,
        *,
        public_base_url: str,
        connections: int = 50,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._client = TwilioClient(account, connections=connections, timeout=timeout)
        self._urls = VoiceUrls(public_base_url)

    async def dial(self, call: OutboundCall) -> LegReport:
        """Begin the leg; its callbacks name it, so it is known even if the answer never arrives."""
        try:
            created = await self._client.calls.create_async(
                to=call.to_number,
                from_=call.from_number,
                url=self._urls.leg_answer(conference_uuid=call.conference_uuid, leg_uuid=call.leg_uuid),
                method="POST",
                status_callback=self._urls.leg_progress(call_uuid=call.call_uuid, leg_uuid=call.leg_uuid),
                status_callback_event=list(_PROGRESS),
                status_callback_method="POST",
                timeout=int(call.ring_for.total_seconds()),
                time_limit=int(call.time_limit.total_seconds()),
                machine_detection="Enable",
            )
        except NotReached as error:
            raise ProviderUnavailable(str(error)) from error
        except NoAnswer as error:
            raise ProviderOutcomeUnknown(str(error)) from error
        except Refusal as refusal:
            raise create_failure(refusal) from refusal
        if not created.sid or not created.status:
            raise ProviderOutcomeUnknown("the answer names no call")
        return _report(created)

    async def find_copies(self, call: OutboundCall, *, since: datetime) -> list[LegReport]:
        """Twilio's calls from one number to the other that we have asked for, oldest first.

        There is no filter on StartTime because a call that waits to be dialled has no such time.
        """
        earliest = since.astimezone(UTC) - _CLOCK_SLACK
        copies: list[LegReport] = []
        with _reading():
            listed = await self._client.calls.stream_async(
                to=call.to_number, from_=call.from_number, page_size=_PAGE_SIZE
            )
            async for found in listed:
                if not found.sid or not found.status or found.date_created is None:
                    raise NoAnswer("the list names no call")
                if found.date_created < earliest:
                    break
                if found.direction == "outbound-api":
                    copies.append(_report(found))
        copies.reverse()
        return copies

    async def fetch(self, call_sid: str) -> LegReport | None:
        """Twilio's word on one leg now."""
        with _reading():
            try:
                found = await self._client.calls(_in_path(call_sid)).fetch_async()
            except Refusal as refusal:
                if says_there_is_none(refusal):
                    return None
                raise
            if not found.sid or not found.status:
                raise NoAnswer("the answer names no call")
            return _report(found)

    async def hang_up(self, call_sid: str) -> None:
        """End a leg. `completed` ends it wherever it is; `canceled` would leave one be that was just answered."""
        with _changing():
            await self._client.calls(_in_path(call_sid)).update_async(status="completed")

    async def update_participant(self, conference_sid: str, call_sid: str, *, muted: bool, hold: bool) -> None:
        """Have somebody in a conference so; who is held hears Twilio's music."""
        with _changing():
            conference = self._client.conferences(_in_path(conference_sid))
            await conference.participants(_in_path(call_sid)).update_async(muted=muted, hold=hold)

    async def list_recordings(
        self, *, call_sids: Sequence[str], conference_sid: str | None, conference_uuid: UUID | None
    ) -> list[RecordingReport]:
        """Twilio's recordings. One of a `<Record>` belongs to its call, of a `<Dial>` to the call that dialled, of a
        `<Conference>` to the conference."""
        with _reading():
            folders = [self._client.calls(_in_path(call_sid)).recordings for call_sid in call_sids]
            sids = [conference_sid] if conference_sid is not None else await self._conference_sids(conference_uuid)
            folders += [self._client.conferences(_in_path(sid)).recordings for sid in sids]
            reports = [self._recording_report(found) for folder in folders async for found in _all_in(folder)]
        return list({report.recording_sid: report for report in reports}.values())

    async def _conference_sids(self, conference_uuid: UUID | None) -> list[str]:
        """A name may have had several conferences, one after the other."""
        if conference_uuid is None:
            return []
        listed = await self._client.conferences.stream_async(friendly_name=str(conference_uuid), page_size=_PAGE_SIZE)
        sids = [found.sid async for found in listed]
        if not all(sids):
            raise NoAnswer("the list names no conference")
        return sids

    def _recording_report(self, recording: "RecordingInstance") -> RecordingReport:
        if not recording.sid or not recording.status:
            raise NoAnswer("the list names no recording")
        return RecordingReport(
            recording_sid=recording.sid,
            provider_status=recording.status if recording.status in _RECORDING_OUTCOMES else _NOT_READY,
            url=self._client.get_hostname(self._client.api.v2010.absolute_url(self._path_of_file(recording.sid))),
            duration=_seconds(recording.duration),
            channels=recording.channels,
            call_sid=recording.call_sid or None,
            conference_sid=recording.conference_sid or None,
            call_uuid=None,
            source=recording.source or None,
        )

    def _path_of_file(self, recording_sid: str) -> str:
        """Where callbacks say that it is. The list's own URIs are below the call or the conference."""
        return f"/Accounts/{self._client.account_sid}/Recordings/{_in_path(recording_sid)}"

    async def delete_recording(self, recording_sid: str) -> None:
        """Delete Twilio's copy, if there is one."""
        try:
            with _changing():
                await self._client.recordings(_in_path(recording_sid)).delete_async()
        except CallGone:
            return

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        raise unavailable(refusal) from refusal
    except (NotReached, NoAnswer, TwilioException) as error:
        raise ProviderUnavailable(str(error)) from error


@contextmanager
def _changing() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if says_there_is_none(refusal) or refusal.code == _NOT_IN_PROGRESS:
            raise CallGone(str(refusal)) from refusal
        raise change_failure(refusal) from refusal
    except (NotReached, NoAnswer, TwilioException) as error:
        raise ProviderUnavailable(str(error)) from error


async def _all_in(folder: "RecordingList") -> AsyncIterator["RecordingInstance"]:
    """Its recordings; none where Twilio has no such call or conference."""
    try:
        async for found in await folder.stream_async(page_size=_PAGE_SIZE):
            yield found
    except Refusal as refusal:
        if not says_there_is_none(refusal):
            raise


def _seconds(duration: str | None) -> int | None:
    """Of one that is not over Twilio says -1."""
    return int(duration) if duration is not None and duration.isascii() and duration.isdecimal() else None


def _in_path(sid: str) -> str:
    """The SDK puts it into the path as it is."""
    return quote(sid, safe="")


def _report(call: "CallInstance") -> LegReport:
    return LegReport(
        call_sid=call.sid,
        provider_status=call.status,
        answered_by=call.answered_by or None,
        ended_at=call.end_time,
        parent_call_sid=call.parent_call_sid or None,
    )
