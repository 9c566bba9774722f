"""The exchange itself: every call that is made or comes in, and what the account and the people on the phones do to it.

A call is a task that lives in the running event loop. Calls, conferences and problems are in memory alone; recordings
survive a restart where there is a folder for them.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_phones import Phones
from server.providers.sandbox.voice_records import (
    Call,
    Conference,
    Document,
    Entry,
    MachineDetection,
    Participant,
    Problem,
    Recording,
    StatusCallback,
    Webhook,
)


class Exchange:
    """All calls of one account. `second` is how long a simulated second of ringing, pausing and speaking really takes.

    `phones` says how those who are called behave. Made inside a running event loop.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        callbacks: CallbackSender,
        second: timedelta,
        now: Callable[[], datetime],
        data_dir: Path | None = None,
    ) -> None:
        self.phones = Phones()

    # What the account asks for.

    def create_call(
        self,
        *,
        to: str,
        from_: str,
        document: Document,
        base_url: str,
        status_callback: StatusCallback | None = None,
        timeout: int = 60,
        time_limit: int = 14_400,
        machine_detection: MachineDetection | None = None,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Call:
        """Call a phone (or `client:` and an identity); answered at once, while the call is still queued."""
        raise NotImplementedError

    def update_call(self, call_sid: str, *, status: str | None = None, document: Document | None = None) -> Call:
        """Redirect a call that is in progress, or end one: `completed` ends any, `canceled` one that was not answered.

        Raises NotFound, and NotInProgress of a redirect of a call that is not in progress, or of a cancel of one that
        is. Ending a call that is over changes nothing.
        """
        raise NotImplementedError

    def add_participant(
        self,
        conference: str,
        *,
        to: str,
        from_: str,
        base_url: str,
        entry: Entry,
        status_callback: StatusCallback | None = None,
        timeout: int = 60,
        time_limit: int = 14_400,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Participant:
        """Call somebody into a conference, named by its sid or its friendly name; a new name is a new conference.

        Raises NotFound of an unknown sid, NotInProgress of a conference that is over.
        """
        raise NotImplementedError

    def update_participant(
        self,
        conference_sid: str,
        call_sid: str,
        *,
        muted: bool | None = None,
        hold: bool | None = None,
        end_conference_on_exit: bool | None = None,
        announce: Webhook | None = None,
    ) -> Participant:
        """Change a participant, who is named by its call or its label, or have it hear what a URL's TwiML says.

        Raises NotFound of one who is not in the conference.
        """
        raise NotImplementedError

    def remove_participant(self, conference_sid: str, call_sid: str) -> None:
        """Kick a participant; its call goes on with what follows its <Dial>. Raises NotFound."""
        raise NotImplementedError

    def end_conference(self, conference_sid: str) -> Conference:
        """End it for all; one that is over stays as it is. Raises NotFound."""
        raise NotImplementedError

    def announce(self, conference_sid: str, announcement: Webhook) -> Conference:
        """Have everybody in it hear what a URL's TwiML says. Raises NotFound, NotInProgress."""
        raise NotImplementedError

    # What people do.

    def phone_calls(
        self, *, from_: str, to: str, document: Webhook, base_url: str, status_callback: StatusCallback | None = None
    ) -> Call:
        """A phone calls one of the account's numbers, whose voice URL is the document."""
        raise NotImplementedError

    def client_connects(
        self, *, identity: str, application_sid: str, document: Webhook, parameters: Mapping[str, str], base_url: str
    ) -> Call:
        """A browser calls out: the voice URL of its TwiML App is asked with From=client:identity and the parameters.

        `To` of the call is the parameter of that name, else empty, as at Twilio.
        """
        raise NotImplementedError

    def press(self, call_sid: str, digits: str) -> None:
        """Whoever is on the phone presses keys; where nothing listens yet they are kept for what listens next.

        Raises NotFound, NotInProgress.
        """
        raise NotImplementedError

    def say(self, call_sid: str, text: str) -> None:
        """Whoever is on the phone says something; where nothing records yet it is kept for what records next.

        Raises NotFound, NotInProgress.
        """
        raise NotImplementedError

    def hang_up(self, call_sid: str) -> Call:
        """Whoever is on the phone hangs up: declines while it rings. Raises NotFound, NotInProgress."""
        raise NotImplementedError

    # What there is.

    def call(self, sid: str) -> Call:
        """One call. Raises NotFound."""
        raise NotImplementedError

    def calls(self) -> list[Call]:
        """All calls, newest first."""
        raise NotImplementedError

    def conference(self, sid: str) -> Conference:
        """One conference. Raises NotFound."""
        raise NotImplementedError

    def conferences(self) -> list[Conference]:
        """All conferences, newest first."""
        raise NotImplementedError

    def participant(self, conference_sid: str, call_sid: str) -> Participant:
        """Somebody in a conference, by the sid of the call or by label. Raises NotFound."""
        raise NotImplementedError

    def recording(self, sid: str) -> Recording:
        """One recording. Raises NotFound."""
        raise NotImplementedError

    def recordings(self) -> list[Recording]:
        """All recordings, newest first."""
        raise NotImplementedError

    def recording_file(self, sid: str) -> bytes:
        """The WAV file of a completed recording. Raises NotFound, NotInProgress while it is recorded or empty."""
        raise NotImplementedError

    def delete_recording(self, sid: str) -> None:
        """Forget a recording and its file. Raises NotFound."""
        raise NotImplementedError

    def problems(self) -> list[Problem]:
        """What the account's answers had wrong, oldest first (the last 1,000)."""
        raise NotImplementedError

    async def reset(self) -> None:
        """End all and forget all, phones too; nothing more is told."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """End all calls without telling anybody."""
        raise NotImplementedError
