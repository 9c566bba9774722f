"""What a file of a recording is, by what Zoom calls it: its download is often said to be anything."""

# Zoom's file extensions.
_OF_EXTENSION = {
    "CSV": "text/csv",
    "JPG": "image/jpeg",
    "JSON": "application/json",
    "M4A": "audio/mp4",
    "MP4": "video/mp4",
    "TXT": "text/plain",
    "VTT": "text/vtt",
}

# Zoom's file types, for files without an extension.
_OF_FILE_TYPE = {
    "CC": "text/vtt",
    "CHAT": "text/plain",
    "CSV": "text/csv",
    "M4A": "audio/mp4",
    "MP4": "video/mp4",
    "SUMMARY": "application/json",
    "TB": "image/jpeg",
    "TIMELINE": "application/json",
    "TRANSCRIPT": "text/vtt",
}

# Kept, and given out to be saved: whoever has it may know what it is.
_ANYTHING = "application/octet-stream"


def content_type_of(*, file_type: str, file_extension: str | None) -> str:
    """The type that a file is stored and given out as: one of storage.KEPT_TYPES."""
    if file_extension is not None:
        return _OF_EXTENSION.get(file_extension.upper(), _ANYTHING)
    return _OF_FILE_TYPE.get(file_type.upper(), _ANYTHING)
