"""Area codes and their states."""

import re
from collections import Counter

import phonenumbers
import pytest

from server.numbers import states
from server.numbers.states import STATES, state_of

CODES = [code for codes in states._AREA_CODES.values() for code in codes.split()]

NO_PLACE = "800 833 844 855 866 877 888 500 521 533 544 566 588 600 700 710 900 911"
CANADIAN = (
    "204 226 236 249 250 257 263 289 306 343 354 365 367 368 382 403 416 418 428 431 437 438 450 468 474 506 514 519 "
    "548 579 581 584 587 604 613 639 647 672 683 705 709 742 753 778 780 782 807 819 825 867 873 879 902 905 942"
)
CARIBBEAN = "242 246 264 268 284 345 441 473 649 658 664 721 758 767 784 809 829 849 868 869 876"


def number(area_code: str) -> str:
    return f"+1{area_code}5550100"


def test_every_code_is_three_digits_of_the_plan_and_has_one_state() -> None:
    # The second digit 9 is kept for longer numbers, and N11 are services.
    assert [code for code in CODES if not re.fullmatch(r"[2-9][0-8]\d", code) or code.endswith("11")] == []
    assert [code for code, count in Counter(CODES).items() if count > 1] == []


def test_states_are_fifty_with_the_district_and_the_territories() -> None:
    assert len(STATES) == 56
    assert {"DC", "PR", "GU", "VI", "MP", "AS"} < STATES
    assert all(re.fullmatch("[A-Z]{2}", state) for state in STATES)
    assert len(CODES) == 378


def test_no_code_is_of_another_country_or_of_no_place() -> None:
    others = f"{NO_PLACE} {CANADIAN} {CARIBBEAN}".split()

    assert [code for code in others if state_of(number(code)) is not None] == []


def test_every_us_code_that_the_library_of_numbers_knows_has_a_state() -> None:
    parsed = {code: phonenumbers.parse(number(code)) for code in map(str, range(200, 1000))}
    of_a_place = phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE
    known = [
        code
        for code, parsed_number in parsed.items()
        if phonenumbers.region_code_for_number(parsed_number) == "US"
        and phonenumbers.number_type(parsed_number) == of_a_place
    ]

    assert len(known) > 300
    assert [code for code in known if state_of(number(code)) is None] == []


@pytest.mark.parametrize(
    ("area_code", "state"),
    [
        ("206", "WA"),
        ("512", "TX"),
        ("212", "NY"),
        ("312", "IL"),
        ("415", "CA"),
        ("305", "FL"),
        ("202", "DC"),
        ("907", "AK"),
        ("808", "HI"),
        ("787", "PR"),
        ("939", "PR"),
        ("671", "GU"),
        ("340", "VI"),
        ("670", "MP"),
        ("684", "AS"),
    ],
)
def test_well_known_codes(area_code: str, state: str) -> None:
    assert state_of(number(area_code)) == state


@pytest.mark.parametrize(
    ("overlay", "overlaid", "state"),
    [
        ("465", "718", "NY"),
        ("471", "662", "MS"),
        ("483", "334", "AL"),
        ("679", "313", "MI"),
        ("748", "970", "CO"),
        ("729", "423", "TN"),
        ("357", "559", "CA"),
        ("837", "530", "CA"),
        ("457", "318", "LA"),
        ("621", "713", "TX"),
        ("924", "507", "MN"),
        ("436", "440", "OH"),
        ("624", "716", "NY"),
        ("728", "561", "FL"),
        ("645", "305", "FL"),
        ("821", "864", "SC"),
        ("686", "804", "VA"),
        ("948", "757", "VA"),
        ("235", "573", "MO"),
        ("327", "870", "AR"),
        ("861", "309", "IL"),
        ("738", "213", "CA"),
        ("983", "303", "CO"),
        ("227", "301", "MD"),
    ],
)
def test_overlays_are_in_the_state_of_what_they_overlay(overlay: str, overlaid: str, state: str) -> None:
    assert (state_of(number(overlay)), state_of(number(overlaid))) == (state, state)


@pytest.mark.parametrize("phone_number", ["+442065550100", "+12065550", "+120655501000", "12065550100", "", "+1"])
def test_what_is_no_north_american_number_has_no_state(phone_number: str) -> None:
    assert state_of(phone_number) is None
