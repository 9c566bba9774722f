"""What callers hear and what becomes of their calls: the documents are their golden files, and can be carried out."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.sandbox.voice_twiml import verbs_of
from server.providers.sandbox.voice_verbs import Dial, Gather, Hangup, Record, Redirect, Say
from tests.providers.twilio_voice.scripts import CALL, CONFERENCE, LEG, SCRIPTS, all_scripts, conference, menu, welcome

GOLDEN = Path(__file__).parents[2] / "golden" / "twiml"


def canonical(document: str) -> str:
    """The same for documents that mean the same: attributes sorted, no space around texts."""
    return ElementTree.canonicalize(document, strip_text=True)


def heard(document: bytes) -> str:
    """What is spoken, as whoever parses the document hears it."""
    return " ".join(say.text or "" for say in ElementTree.fromstring(document).iter("Say"))  # noqa: S314 # our own


@pytest.mark.parametrize(("name", "document"), all_scripts().items(), ids=all_scripts())
def test_script_is_its_golden_file(name: str, document: bytes) -> None:
    assert canonical(document.decode()) == canonical((GOLDEN / f"{name}.xml").read_text())


def test_every_golden_file_is_of_a_script() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(all_scripts())


@pytest.mark.parametrize("document", all_scripts().values(), ids=all_scripts())
def test_script_can_be_carried_out(document: bytes) -> None:
    assert document.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    assert verbs_of("text/xml", document)


@pytest.mark.parametrize("document", all_scripts().values(), ids=all_scripts())
def test_every_url_is_absolute_and_names_what_it_is_about(document: bytes) -> None:
    for element in ElementTree.fromstring(document).iter():  # noqa: S314 # our own
        urls = [value for name, value in element.attrib.items() if name == "action" or name.endswith("allback")]
        for url in map(urlsplit, [*urls, element.text or ""] if element.tag == "Redirect" else urls):
            assert (url.scheme, url.netloc) == ("https", "api.example")
            assert url.path.startswith("/api/v1/twilio_calls/")
            assert {"call_uuid", "conference_uuid"} & set(parse_qs(url.query))
            assert url.fragment == "rc=5&rp=all"


def test_nobody_starts_a_conference_or_ends_it_but_the_moderator() -> None:
    (moderator,) = verbs_of("text/xml", conference(is_moderator=True))
    (contact,) = verbs_of("text/xml", conference(is_moderator=False))

    assert isinstance(moderator, Dial)
    assert isinstance(contact, Dial)
    flags = [
        (noun.start_conference_on_enter, noun.end_conference_on_exit)  # type: ignore[union-attr] # a Conference
        for noun in (*moderator.nouns, *contact.nouns)
    ]
    assert flags == [(True, True), (False, False)]


def test_script_is_asked_for_again_once_the_welcome_message_was_heard() -> None:
    say, redirect = verbs_of("text/xml", welcome())

    assert isinstance(say, Say)
    assert isinstance(redirect, Redirect)
    asked = f"https://api.example/api/v1/twilio_calls/voice_responses?conference_uuid={CONFERENCE}&leg_uuid={LEG}"
    assert (redirect.url, redirect.method) == (f"{asked}&welcomed=1#rc=5&rp=all", "POST")


def test_menu_hears_one_digit_or_none_and_says_which_attempt_it_was() -> None:
    (gather,) = verbs_of("text/xml", menu(attempt=2, pressed="9", opted_out=False))

    assert isinstance(gather, Gather)
    assert (gather.num_digits, gather.timeout, gather.action_on_empty_result) == (1, 5, True)
    asked = f"https://api.example/api/v1/twilio_calls/return_call_menu?call_uuid={CALL}&attempt=2"
    assert gather.action == f"{asked}#rc=5&rp=all"


def test_who_leaves_no_message_is_told_so_and_hung_up_on() -> None:
    _, record, say, hang_up = verbs_of("text/xml", SCRIPTS.take_voicemail(call_uuid=CALL))

    assert isinstance(record, Record)
    assert isinstance(say, Say)
    assert isinstance(hang_up, Hangup)
    assert record.action == record.recording_status_callback


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ('Ms. O\'Neil & <Sons> say "hello" ]]> &amp;', 'Ms. O\'Neil & <Sons> say "hello" ]]> &amp;'),
        ("</Say><Dial>+19005550100</Dial><Say>", "</Say><Dial>+19005550100</Dial><Say>"),
        ("Réunion 父母会 🚌", "Réunion 父母会 🚌"),
        ("a\0b\x01c\x1bd\x7f", "a b c d\x7f"),
        ("half \ud83d, \ufffe and \uffff", "half  ,   and  "),
        ("a\tb\nc", "a\tb\nc"),
    ],
)
def test_text_is_spoken_as_it_is_whatever_is_in_it(text: str, spoken: str) -> None:
    assert heard(SCRIPTS.say(text)) == spoken
    assert heard(welcome(text)) == spoken


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_any_text_can_be_spoken_and_no_other_is(text: str) -> None:
    for document in (SCRIPTS.say(text), SCRIPTS.say_and_hang_up(text)):
        spoken = heard(document).replace("\n", "\r")

        assert len(spoken) + text.count("\r\n") == len(text)
        assert all(said in (" ", asked, "\r") for said, asked in zip(spoken, text.replace("\r\n", "\r"), strict=True))


@given(st.text(st.characters(exclude_categories=[]), max_size=50))
def test_numbers_and_names_that_others_chose_make_no_other_document(name: str) -> None:
    for document in (
        SCRIPTS.ring_browser(call_uuid=CALL, leg_uuid=LEG, identity=name, caller_id=name, time_limit=timedelta(1)),
        SCRIPTS.dial_contact(call_uuid=CALL, leg_uuid=LEG, caller_id=name, phone_number=name, time_limit=timedelta(1)),
    ):
        (dial,) = ElementTree.fromstring(document)  # noqa: S314 # our own
        assert dial.tag == "Dial"
        assert len(dial) == 1
        assert len(dial[0]) == 0
