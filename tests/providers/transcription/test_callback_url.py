"""The code in the URLs that transcription services call back."""

from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import SignatureInvalid
from server.providers.transcription.callback_url import CallbackUrls
from server.storage import UrlSigner

BASE = "https://api.example/api/v1/transcription_requests/webhook"
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@given(st.uuids())
def test_url_proves_the_transcript_it_was_made_for(reference: UUID) -> None:
    assert CallbackUrls([NEW]).reference(CallbackUrls([NEW]).url(BASE, reference)) == reference


def test_url_of_a_key_that_was_rotated_still_holds() -> None:
    reference = uuid4()
    given_before = CallbackUrls([OLD]).url(BASE, reference)

    assert CallbackUrls([NEW, OLD]).reference(given_before) == reference
    with pytest.raises(SignatureInvalid):
        CallbackUrls([NEW]).reference(given_before)


def test_code_of_one_transcript_is_no_other_ones() -> None:
    urls = CallbackUrls([NEW])
    one, other = uuid4(), uuid4()

    with pytest.raises(SignatureInvalid):
        urls.reference(urls.url(BASE, one).replace(str(one), str(other)))


def test_code_has_a_purpose_of_its_own() -> None:
    reference = uuid4()
    [code] = parse_qs(urlsplit(CallbackUrls([NEW]).url(BASE, reference)).query)["code"]

    assert not UrlSigner(BASE, [NEW]).holds(str(reference), expires=0, signature=code)
    assert len(code) == 43


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?transcript_uuid={reference}",
        "?code={code}",
        "?transcript_uuid={reference}&code=",
        "?transcript_uuid={reference}&code={code}x",
        "?transcript_uuid={reference}&code=%FF%00",
        "?transcript_uuid={reference}&code={code}&code={code}",
        "?transcript_uuid={reference}&transcript_uuid={other}&code={code}",
        "?transcript_uuid=nothing&code={code}",
    ],
)
def test_url_that_we_did_not_give_proves_nothing(query: str) -> None:
    urls = CallbackUrls([NEW])
    reference = uuid4()
    [code] = parse_qs(urlsplit(urls.url(BASE, reference)).query)["code"]

    with pytest.raises(SignatureInvalid):
        urls.reference(BASE + query.format(reference=reference, other=uuid4(), code=code))
