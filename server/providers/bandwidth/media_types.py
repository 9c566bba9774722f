"""What a file of a message is: Bandwidth says so by its name alone."""

import mimetypes
from urllib.parse import urlsplit

# What a file is that nobody knows the type of, as Bandwidth says of any.
UNNAMED = "application/octet-stream"


def named_type(url: str) -> str:
    """The type that the name of the file stands for."""
    guessed, _ = mimetypes.guess_type(urlsplit(url).path)
    return guessed or UNNAMED
