"""Proves Zoom's webhooks. Imports no HTTP client: every api process loads this."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest
from server.providers.video_ports import UrlValidation, VideoEvent
from server.providers.zoom.events import video_event
from server.providers.zoom.fields import Fields
from server.providers.zoom.times import epoch_time

_SIGNATURE = "x-zm-signature"
_TIMESTAMP = "x-zm-request-timestamp"

# Older or more ahead of our clock than this, a webhook may be anybody's who has seen it once.
_WINDOW = timedelta(minutes=5)

_SECONDS = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)

_URL_VALIDATION = "endpoint.url_validation"


class ZoomVideoEventReader:
    """video_ports.VideoEventReader for webhooks that are signed with one secret token."""

    def __init__(self, *, secret_token: str) -> None:
        self._secret_token = secret_token.encode()

    def read(self, request: SignedRequest, *, now: datetime) -> VideoEvent | UrlValidation:
        """Verify the raw body and its age, then parse.

        The validation of the URL is answered only when it is signed as well, which Zoom does: its answer is an HMAC of
        whatever it asks for, and one that answered anybody would sign webhooks for anybody.
        """
        sent_at = self._verify(request, now=now)
        body = Fields(_json_object(request.body))
        name = body.word("event")
        if name is None:
            raise CallbackMalformed("missing: event")
        if name == _URL_VALIDATION:
            return self._validation(body.part("payload"))
        return video_event(name, body, sent_at=sent_at)

    def _verify(self, request: SignedRequest, *, now: datetime) -> datetime:
        """When the webhook was sent. Raises SignatureInvalid."""
        headers = {name.lower(): value.strip() for name, value in request.headers.items()}
        signature, timestamp = headers.get(_SIGNATURE), headers.get(_TIMESTAMP)
        if not signature or not timestamp:
            raise SignatureInvalid(f"no {_SIGNATURE} or no {_TIMESTAMP}")
        signed = self._hmac(b"v0:" + timestamp.encode(errors="replace") + b":" + request.body)
        if not hmac.compare_digest(signature.encode(errors="replace"), b"v0=" + signed.encode()):
            raise SignatureInvalid("the signature does not fit timestamp and body")
        sent_at = epoch_time(int(timestamp)) if _SECONDS.fullmatch(timestamp) else None
        if sent_at is None:
            raise SignatureInvalid(f"{_TIMESTAMP} is no time")
        if now - sent_at > _WINDOW:
            raise SignatureInvalid("the timestamp is stale")
        if sent_at - now > _WINDOW:
            raise SignatureInvalid("the timestamp is ahead of our clock")
        return sent_at

    def _validation(self, payload: Fields) -> UrlValidation:
        plain_token = payload.word("plainToken")
        if plain_token is None:
            raise CallbackMalformed("missing: payload.plainToken")
        return UrlValidation(plain_token=plain_token, encrypted_token=self._hmac(plain_token.encode()))

    def _hmac(self, data: bytes) -> str:
        return hmac.new(self._secret_token, data, hashlib.sha256).hexdigest()


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise CallbackMalformed("the body is not JSON") from error
    if not isinstance(parsed, dict):
        raise CallbackMalformed("the body is not a JSON object")
    return parsed
