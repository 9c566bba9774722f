"""What a file of a message is: Bandwidth says so by its name alone."""

import mimetypes
from urllib.parse import urlsplit

# What a file is that nobody knows the type of, as Bandwidth says of any.
UNNAMED = "application/octet-stream"


def named_type(url: str) -> str:
    """The type that the name of the file stands for."""
    guessed, _ = mimetypes.guess_type(path_of(url))
    return guessed or UNNAMED


def path_of(url: str) -> str:
    """The path of a URL; "" of what is none, which is refused when it is to be fetched."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
