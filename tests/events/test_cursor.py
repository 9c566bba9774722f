import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.events import cursor
from server.events.cursor import CursorInvalid

positions = st.integers(min_value=0, max_value=2**56 - 1)


@given(positions)
def test_cursor_names_its_position(position: int) -> None:
    assert cursor.decode(cursor.encode(position)) == position


@given(positions)
def test_cursor_needs_no_escaping_in_a_url(position: int) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", cursor.encode(position))


@given(st.text() | st.text(alphabet="ABCabc012-_=", min_size=14, max_size=18))
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid):
        cursor.decode(text)


@given(positions, st.integers(0, 15), st.sampled_from("AQgwZz09-_+/= \n"))
def test_a_changed_character_is_noticed(position: int, index: int, character: str) -> None:
    text = cursor.encode(position)
    changed = text[:index] + character + text[index + 1 :]

    if changed != text:
        with pytest.raises(CursorInvalid):
            cursor.decode(changed)


@given(positions, st.text(alphabet="A=", min_size=1, max_size=4))
def test_a_longer_cursor_is_refused(position: int, more: str) -> None:
    with pytest.raises(CursorInvalid):
        cursor.decode(cursor.encode(position) + more)
