"""The URLs that transcription services are given to call back: a code in them proves that we gave them.

VoiceBase signs nothing. Whoever does not know the code of a transcript can tell us nothing about it.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

from server.providers.ports import SignatureInvalid

_REFERENCE = "transcript_uuid"
_CODE = "code"


class CallbackUrls:
    """Makes and proves them. The first encryption key makes codes and each one proves them, so keys can be rotated."""

    def __init__(self, encryption_keys: Sequence[str]) -> None:
        self._secrets = [
            hmac.digest(base64.urlsafe_b64decode(key), b"commonservices transcript callbacks", hashlib.sha256)
            for key in encryption_keys
        ]

    def url(self, base_url: str, reference: UUID) -> str:
        """Where what becomes of this transcript is to be told. `base_url` has no query."""
        return f"{base_url}?{urlencode({_REFERENCE: str(reference), _CODE: _code(self._secrets[0], reference)})}"

    def reference(self, url: str) -> UUID:
        """The transcript that a URL of ours is about. Raises SignatureInvalid."""
        query = parse_qs(urlsplit(url).query)
        references, codes = query.get(_REFERENCE, []), query.get(_CODE, [])
        if len(references) != 1 or len(codes) != 1:
            raise SignatureInvalid(f"the URL lacks {_REFERENCE} or {_CODE}")
        try:
            reference = UUID(references[0])
        except ValueError as error:
            raise SignatureInvalid(f"{_REFERENCE} is no uuid") from error
        given = codes[0].encode(errors="replace")
        if not any([hmac.compare_digest(_code(secret, reference).encode(), given) for secret in self._secrets]):
            raise SignatureInvalid(f"the {_CODE} is not this transcript's")
        return reference


def _code(secret: bytes, reference: UUID) -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret, reference.bytes, hashlib.sha256)).decode().rstrip("=")
