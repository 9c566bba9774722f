"""What a file of a message may be: the types that carriers take, and what gives away that an image is none."""

import re

from server.providers.ports import MediaRefused
from server.storage import KEPT_TYPES

# Of one inbound file; Twilio takes no larger message.
MAX_BYTES = 5 * 1024 * 1024

# Kept of recordings; carriers take none of them.
ACCEPTED_TYPES = KEPT_TYPES - {"application/json", "application/octet-stream", "text/vtt"}

# As Twilio's page "Accepted content types for media" spells them, and phones do, for types that have another name.
_ALIASES = {
    "application/rtf": "text/rtf",
    "application/vcard": "text/vcard",
    "audio/amr-nb": "audio/amr",
    "audio/m4a": "audio/mp4",
    "audio/mp3": "audio/mpeg",
    "audio/vorbis": "audio/ogg",
    "audio/wav": "audio/vnd.wave",
    "audio/wave": "audio/vnd.wave",
    "audio/x-aac": "audio/aac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-wav": "audio/vnd.wave",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "text/directory": "text/vcard",
    "text/richtext": "text/rtf",
    "text/x-vcalendar": "text/calendar",
    "text/x-vcard": "text/vcard",
    "video/3gpp-tt": "video/3gpp",
    "video/h263-1998": "video/h263",
    "video/h263-2000": "video/h263",
    "video/mpeg4": "video/mp4",
}

# How the data of images begin. HEIF is a box that names a brand: HEVC's are HEIC.
_HEIF = re.compile(rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|msf1)", re.DOTALL)
_BEGINNINGS = {
    "image/bmp": re.compile(rb"BM"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/heic": _HEIF,
    "image/heif": _HEIF,
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/tiff": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}

_LONGEST_TOLD = 100


def accepted_type(content_type: str) -> str | None:
    """The one name of a type, without parameters; None of a type that is not accepted."""
    bare = content_type.partition(";")[0].strip().lower()
    name = _ALIASES.get(bare, bare)
    return name if name in ACCEPTED_TYPES else None


def proven_type(content_type: str, data: bytes) -> str:
    """The type of a file: of an image what its data are, whichever image it is said to be. Raises MediaRefused of one
    that is not accepted, or is said to be an image and is none."""
    found = accepted_type(content_type)
    if found is None:
        raise MediaRefused(f"is {content_type.partition(';')[0][:_LONGEST_TOLD]}, which is not accepted")
    if not data:
        raise MediaRefused("is empty")
    beginning = _BEGINNINGS.get(found)
    if beginning is None or beginning.match(data):
        return found
    image = next((name for name, begins in _BEGINNINGS.items() if begins.match(data)), None)
    if image is None:
        raise MediaRefused(f"is said to be {found}, but is no image")
    return image
