"""What a file of a message may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.messages.media.types import ACCEPTED_TYPES, accepted_type, proven_type
from server.providers.ports import MediaRefused

# The beginnings of real files.
IMAGES = [
    ("image/bmp", b"BM\x36\x00\x0c\x00"),
    ("image/gif", b"GIF87a"),
    ("image/gif", b"GIF89a"),
    ("image/heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"),
    ("image/heic", b"\x00\x00\x00\x24ftypmif1\x00\x00\x00\x00"),
    ("image/heif", b"\x00\x00\x00\x0aftypheix\x00\x00\x00\x00"),
    ("image/jpeg", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
    ("image/jpeg", b"\xff\xd8\xff\xe1\x00\x10Exif"),
    ("image/png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
    ("image/tiff", b"II*\x00\x08\x00"),
    ("image/tiff", b"MM\x00*\x00\x00"),
    ("image/webp", b"RIFF\x0a\x00\x00\x00WEBPVP8 "),
]


@pytest.mark.parametrize(("content_type", "data"), IMAGES)
def test_image_is_what_it_is_said_to_be(content_type: str, data: bytes) -> None:
    assert proven_type(content_type, data) == content_type


@pytest.mark.parametrize("content_type", sorted({content_type for content_type, _data in IMAGES}))
@pytest.mark.parametrize(
    "data", [b"<html>", b"%PDF-1.7", b"\x00\x00\x00\x18ftypmp42", b"RIFF\x0a\x00\x00\x00WAVE", b"x"]
)
def test_image_that_is_none_is_refused(content_type: str, data: bytes) -> None:
    with pytest.raises(MediaRefused, match="but is no image"):
        proven_type(content_type, data)


@pytest.mark.parametrize(("content_type", "data"), [i for i in IMAGES if i[0] not in ("image/heic", "image/heif")])
def test_image_is_what_its_data_are_whichever_it_is_said_to_be(content_type: str, data: bytes) -> None:
    assert proven_type("image/png", data) == content_type


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("IMAGE/JPG", "image/jpeg"),
        ("image/pjpeg", "image/jpeg"),
        ("text/x-vcard; charset=utf-8", "text/vcard"),
        ("application/vcard", "text/vcard"),
        ("audio/x-wav", "audio/vnd.wave"),
        ("audio/AMR-NB", "audio/amr"),
        ("audio/L24", "audio/l24"),
        ("video/H263-1998", "video/h263"),
        (" text/plain ;format=flowed", "text/plain"),
    ],
)
def test_type_has_one_name(said: str, name: str) -> None:
    assert accepted_type(said) == name


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/html",
        "image/svg+xml",
        "application/json",
        "application/octet-stream",
        "application/xhtml+xml",
        "text/vtt",
        "text/xml",
        "image",
        "video/*",
    ],
)
def test_other_types_are_not_accepted(content_type: str) -> None:
    assert accepted_type(content_type) is None
    with pytest.raises(MediaRefused, match="which is not accepted"):
        proven_type(content_type, b"data")


@given(content_type=st.text(), data=st.binary())
def test_what_is_proven_can_be_kept(content_type: str, data: bytes) -> None:
    try:
        found = proven_type(content_type, data)
    except MediaRefused:
        return
    assert found in ACCEPTED_TYPES


@given(content_type=st.sampled_from(sorted(ACCEPTED_TYPES)), data=st.binary(min_size=1))
def test_kept_type_is_taken_unless_it_is_an_image(content_type: str, data: bytes) -> None:
    assert accepted_type(content_type) == content_type
    if not content_type.startswith("image/"):
        assert proven_type(content_type, data) == content_type
