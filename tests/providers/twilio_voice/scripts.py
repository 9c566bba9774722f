"""Every script that a call may be answered with, by the name of its golden file."""

from datetime import timedelta
from uuid import UUID

from server.providers.twilio.twiml import TwilioCallScripts

SCRIPTS = TwilioCallScripts(public_base_url="https://api.example")

CALL = UUID("0198c8a4-2b1c-7000-8000-00000000000c")
CONFERENCE = UUID("0198c8a4-2b1c-7000-8000-0000000000cf")
LEG = UUID("0198c8a4-2b1c-7000-8000-000000000001")
TIME_LIMIT = timedelta(minutes=120)


def welcome(welcome_message: str = "This is a call from your school.") -> bytes:
    """The first script of a contact in a conference."""
    return SCRIPTS.welcome(conference_uuid=CONFERENCE, leg_uuid=LEG, welcome_message=welcome_message)


def conference(*, is_moderator: bool) -> bytes:
    """The script of somebody in a conference."""
    return SCRIPTS.join_conference(
        call_uuid=CALL, conference_uuid=CONFERENCE, is_moderator=is_moderator, time_limit=TIME_LIMIT
    )


def menu(*, attempt: int, pressed: str | None, opted_out: bool) -> bytes:
    """The script of the menu."""
    return SCRIPTS.return_call_menu(call_uuid=CALL, attempt=attempt, pressed=pressed, opted_out=opted_out)


def all_scripts() -> dict[str, bytes]:
    """One of each."""
    return {
        "moderator": conference(is_moderator=True),
        "contact": conference(is_moderator=False),
        "welcome": welcome(),
        "welcome_without_words": welcome(" "),
        "dial_contact": SCRIPTS.dial_contact(
            call_uuid=CALL,
            leg_uuid=LEG,
            caller_id="+12065550100",
            phone_number="+14155550123",
            time_limit=TIME_LIMIT,
        ),
        "menu": menu(attempt=1, pressed=None, opted_out=False),
        "menu_after_silence": menu(attempt=2, pressed="", opted_out=False),
        "menu_again": menu(attempt=2, pressed="9", opted_out=False),
        "menu_opted_out": menu(attempt=3, pressed="9", opted_out=True),
        "ring_browser": SCRIPTS.ring_browser(
            call_uuid=CALL, leg_uuid=LEG, identity="staff_7", caller_id="+14155550123", time_limit=TIME_LIMIT
        ),
        "voicemail": SCRIPTS.take_voicemail(call_uuid=CALL),
        "say_and_hang_up": SCRIPTS.say_and_hang_up("Goodbye."),
        "say": SCRIPTS.say("This is a call from your school."),
        "hang_up": SCRIPTS.hang_up(),
    }
