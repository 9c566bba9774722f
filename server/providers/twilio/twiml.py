"""Writes TwiML, the answers to Twilio's questions in a call. Of the SDK it imports no more: api processes load it.

No voice is named, so callers hear the one that is chosen for US English in the account's text-to-speech settings.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from twilio.twiml import TwiML
from twilio.twiml.voice_response import Dial, VoiceResponse

from server.providers.twilio.voice_urls import VoiceUrls

_LANGUAGE = "en-US"

# All but what XML 1.0 has as a character.
_NO_CHARACTERS = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_PROGRESS = "initiated ringing answered completed"
_CONFERENCE_EVENTS = "start end join leave mute hold"
_RECORDING_EVENTS = "in-progress completed absent"

_CONTACT_RINGS_FOR = 30
# A browser that is there rings at once.
_BROWSER_RINGS_FOR = 20

_MENU_WAITS_FOR = 5
_VOICEMAIL_LASTS = 300
_VOICEMAIL_SILENCE = 5

_NOT_A_CHOICE = "Sorry, that is not one of the choices."
_NOTHING_PRESSED = "No key was pressed."
_CHOICES = "To speak with your school, press 1. To leave a voicemail, press 2."
_OPT_OUT = "To stop calls from this number, press 3."
_OPT_IN = "To receive calls from this number again, press 3."

_VOICEMAIL = "Please leave your message after the tone. When you are done, hang up or press the pound key."
_NO_VOICEMAIL = "We did not hear a message. Goodbye."


class TwilioCallScripts:
    """voice_ports.CallScripts. What no XML can hold of a text is spoken as a space."""

    def __init__(self, *, public_base_url: str) -> None:
        self._urls = VoiceUrls(public_base_url)

    def welcome(self, *, conference_uuid: UUID, leg_uuid: UUID, welcome_message: str) -> bytes:
        """Twilio asks for what follows when it has spoken, and not where somebody has hung up."""
        response = VoiceResponse()
        if welcome_message.strip():
            _say(response, welcome_message)
        url = self._urls.welcomed_leg_answer(conference_uuid=conference_uuid, leg_uuid=leg_uuid)
        response.redirect(url, method="POST")
        return _document(response)

    def join_conference(
        self, *, call_uuid: UUID, conference_uuid: UUID, is_moderator: bool, time_limit: timedelta
    ) -> bytes:
        """Twilio takes callbacks and recording of whoever comes first, so everybody brings the same."""
        dial = Dial(time_limit=_seconds(time_limit))
        dial.conference(
            str(conference_uuid),
            start_conference_on_enter=is_moderator,
            end_conference_on_exit=is_moderator,
            beep=False if is_moderator else "onEnter",
            record="record-from-start",
            recording_status_callback=self._urls.recording(call_uuid=call_uuid),
            recording_status_callback_event=_RECORDING_EVENTS,
            status_callback=self._urls.conference_event(conference_uuid=conference_uuid),
            status_callback_event=_CONFERENCE_EVENTS,
        )
        return _document(VoiceResponse(), [dial])

    def dial_contact(
        self, *, call_uuid: UUID, leg_uuid: UUID, caller_id: str, phone_number: str, time_limit: timedelta
    ) -> bytes:
        """Who answers is detected while they already speak: nobody waits for it."""
        dial = self._recorded_dial(call_uuid, caller_id=caller_id, time_limit=time_limit, rings_for=_CONTACT_RINGS_FOR)
        progress = self._urls.leg_progress(call_uuid=call_uuid, leg_uuid=leg_uuid)
        dial.number(
            _holdable(phone_number),
            status_callback=progress,
            status_callback_event=_PROGRESS,
            machine_detection="Enable",
            amd_status_callback=progress,
        )
        return _document(VoiceResponse(), [dial])

    def return_call_menu(self, *, call_uuid: UUID, attempt: int, pressed: str | None, opted_out: bool) -> bytes:
        """Digits are taken as soon as they are pressed, also while the menu is spoken."""
        response = VoiceResponse()
        gather = response.gather(
            num_digits=1,
            timeout=_MENU_WAITS_FOR,
            action=self._urls.menu_choice(call_uuid=call_uuid, attempt=attempt),
            method="POST",
            action_on_empty_result=True,
        )
        before = [] if pressed is None else [_NOT_A_CHOICE if pressed else _NOTHING_PRESSED]
        _say(gather, " ".join([*before, _CHOICES, _OPT_IN if opted_out else _OPT_OUT]))
        return _document(response)

    def ring_browser(
        self, *, call_uuid: UUID, leg_uuid: UUID, identity: str, caller_id: str, time_limit: timedelta
    ) -> bytes:
        """Every browser that is registered under the identity rings; the first to answer has the call."""
        dial = self._recorded_dial(call_uuid, caller_id=caller_id, time_limit=time_limit, rings_for=_BROWSER_RINGS_FOR)
        dial.client(
            _holdable(identity),
            status_callback=self._urls.leg_progress(call_uuid=call_uuid, leg_uuid=leg_uuid),
            status_callback_event=_PROGRESS,
        )
        return _document(VoiceResponse(), [dial])

    def take_voicemail(self, *, call_uuid: UUID) -> bytes:
        """Who is silent is heard no more than that: Twilio goes on to what follows, and keeps no recording."""
        response = VoiceResponse()
        url = self._urls.voicemail(call_uuid=call_uuid)
        _say(response, _VOICEMAIL)
        response.record(
            action=url,
            method="POST",
            max_length=_VOICEMAIL_LASTS,
            timeout=_VOICEMAIL_SILENCE,
            finish_on_key="#",
            play_beep=True,
            recording_status_callback=url,
            recording_status_callback_event=_RECORDING_EVENTS,
        )
        _say(response, _NO_VOICEMAIL)
        response.hangup()
        return _document(response)

    def say_and_hang_up(self, text: str) -> bytes:
        """Speak, then end the call."""
        response = VoiceResponse()
        _say(response, text)
        response.hangup()
        return _document(response)

    def say(self, text: str) -> bytes:
        """Speak, no more."""
        response = VoiceResponse()
        _say(response, text)
        return _document(response)

    def hang_up(self) -> bytes:
        """End the call."""
        response = VoiceResponse()
        response.hangup()
        return _document(response)

    def _recorded_dial(self, call_uuid: UUID, *, caller_id: str, time_limit: timedelta, rings_for: int) -> Dial:
        """Each side is recorded on its own channel; whoever calls hears it ring until somebody answers."""
        return Dial(
            caller_id=_holdable(caller_id),
            answer_on_bridge=True,
            timeout=rings_for,
            time_limit=_seconds(time_limit),
            action=self._urls.dial_result(call_uuid=call_uuid),
            method="POST",
            record="record-from-answer-dual",
            recording_status_callback=self._urls.recording(call_uuid=call_uuid),
            recording_status_callback_event=_RECORDING_EVENTS,
        )


def _say(parent: Any, text: str) -> None:
    parent.say(_holdable(text), language=_LANGUAGE)


def _holdable(text: str) -> str:
    return _NO_CHARACTERS.sub(" ", text)


def _seconds(limit: timedelta) -> int:
    return int(limit.total_seconds())


def _document(response: VoiceResponse, verbs: Iterable[TwiML] = ()) -> bytes:
    for verb in verbs:
        response.append(verb)
    return str(response.to_xml()).encode()
