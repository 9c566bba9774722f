"""What a browser's call is asked for with in JSON, whatever its sender makes of that."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls.browsers.drafts import SdkCallDraft, read_sdk_call
from server.conversations.keys import ConversationKey
from server.errors import InvalidArgument

NOTHING = SdkCallDraft(None, None, None, None, None, None)

FIELDS = (
    "To",
    "client_conversation_id",
    "global_id",
    "internal_conversation_id",
    "messaging_service_sid",
    "global_customer_id",
    "callback_url",
    "request_id",
)


def read(**fields: Any) -> SdkCallDraft:
    return read_sdk_call(json.dumps(fields).encode())


def bad_fields(body: bytes) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        read_sdk_call(body)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_everything_is_read() -> None:
    draft = read(
        To="(206) 555-0190",
        global_id="9a5ce3c8-ab44-4e1e-8f52-5d2f7d0b7a10",
        messaging_service_sid="MG1",
        global_customer_id="customer",
        callback_url="https://callbacks.example/calls",
        request_id="once",
    )

    assert draft == SdkCallDraft(
        "+12065550190",
        ConversationKey("global_id", "9a5ce3c8-ab44-4e1e-8f52-5d2f7d0b7a10"),
        "MG1",
        "customer",
        "https://callbacks.example/calls",
        "once",
    )


@pytest.mark.parametrize("key", ["client_conversation_id", "global_id", "internal_conversation_id"])
def test_conversation_is_enough(key: Any) -> None:
    assert read(**{key: "a"}).conversation == ConversationKey(key, "a")


@pytest.mark.parametrize("service", ["messaging_service_sid", "global_customer_id"])
def test_contact_and_what_to_call_from_are_enough(service: str) -> None:
    draft = read(To="+12065550190", **{service: "a"})

    assert (draft.phone_number, draft.conversation) == ("+12065550190", None)


def test_null_and_empty_text_are_nothing_and_what_is_unknown_is_not_looked_at() -> None:
    nothing = {field: None for field in FIELDS} | {"callback_url": ""}

    draft = read(**nothing | {"client_conversation_id": "a", "From": 7, "to": ["x"], "moderator_id": {}})

    assert draft == SdkCallDraft(None, ConversationKey("client_conversation_id", "a"), None, None, None, None)


@pytest.mark.parametrize(
    ("body", "description"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"To=%2B12065550190", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"To": "\xff"}', "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"a":' * 200_000, "is not JSON"),
        (b"9" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'[{"To": "+12065550190"}]', "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'"To"', "is not a JSON object"),
        (b"7", "is not a JSON object"),
        (b"NaN", "is not a JSON object"),
    ],
)
def test_body_that_is_no_object_is_told(body: bytes, description: str) -> None:
    assert bad_fields(body) == {"body": description}


def test_every_value_that_is_no_text_is_named() -> None:
    values = [7, 1.5, True, [], ["a"], {}, {"a": "b"}, 0]

    found = bad_fields(json.dumps(dict(zip(FIELDS, values, strict=True))).encode())

    assert {found[field] for field in FIELDS} == {"must be a string"}


def test_every_bad_text_is_named() -> None:
    found = bad_fields(
        json.dumps(
            {
                "To": "nobody",
                "client_conversation_id": "x" * 256,
                "global_id": "b",
                "internal_conversation_id": "a\0b",
                "messaging_service_sid": "\ud800",
                "global_customer_id": " ",
                "callback_url": "ftp://a.example",
            }
        ).encode()
    )

    assert found == {
        "To": "is not a possible phone number; give E.164, such as +12065550100",
        "client_conversation_id": "must be at most 255 characters",
        "global_id": "give it or client_conversation_id, not both",
        "internal_conversation_id": "must not contain the NUL character",
        "messaging_service_sid": "is not valid Unicode",
        "global_customer_id": "must not be blank",
        "callback_url": "is not an absolute http or https URL",
    }


def test_nothing_named_is_told_of_both_that_are_missing() -> None:
    assert set(bad_fields(b"{}")) == {"To", "client_conversation_id"}
    assert set(bad_fields(b'{"messaging_service_sid": "a"}')) == {"To"}
    assert set(bad_fields(b'{"To": "+12065550190"}')) == {"client_conversation_id"}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def outcome(body: bytes) -> SdkCallDraft | set[str]:
    """The draft, or the bad fields."""
    try:
        return read_sdk_call(body)
    except InvalidArgument as refusal:
        return {violation.field for violation in refusal.violations}


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), json_values))
def test_any_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    found = outcome(json.dumps(fields).encode())

    if isinstance(found, set):
        assert found
        assert found <= set(FIELDS)
    else:
        assert found != NOTHING
        assert all(isinstance(fields.get(field), str | None) for field in FIELDS)


@given(st.binary(max_size=100))
def test_bytes_that_are_no_body_are_refused(body: bytes) -> None:
    assert isinstance(outcome(body), set)
