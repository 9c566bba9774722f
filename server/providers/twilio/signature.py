"""Proves Twilio's callbacks. Imports nothing of the SDK but its validator: every api process loads this."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from twilio.request_validator import RequestValidator

from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest

# Twilio sends some thirty fields; more than this is nobody's callback and not worth parsing.
_MAX_FIELDS = 500


class _Form(dict[str, list[str]]):
    """Form fields as the validator wants them: it signs every distinct value of a repeated name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


class Verifier:
    """Verifies callbacks that are signed with one account's auth token."""

    def __init__(self, *, auth_token: str) -> None:
        self._validator = RequestValidator(auth_token)

    def fields(self, request: SignedRequest) -> Mapping[str, str]:
        """What the request says, once its signature holds: nothing of an unproven body is looked at beyond what was
        signed. Raises SignatureInvalid or CallbackMalformed."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        signature = headers.get("x-twilio-signature")
        if not signature:
            raise SignatureInvalid("no X-Twilio-Signature")
        if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            self._verify_json(request, signature)
            return _json_fields(request.body)
        form = _form(request.body)
        if not self._validator.validate(request.url, form, signature):
            raise SignatureInvalid("the signature does not fit URL and form")
        return {name: values[-1] for name, values in form.items()}

    def storable_fields(self, request: SignedRequest) -> Mapping[str, str]:
        """`fields` with what no row can hold replaced: NUL, which PostgreSQL refuses in a text, and the halves of
        characters that JSON can spell."""
        return {name: _storable(value) for name, value in self.fields(request).items()}

    def _verify_json(self, request: SignedRequest, signature: str) -> None:
        """The URL is signed and carries the body's hash. The validator would want the raw body as text: hashed here."""
        signed_hash = parse_qs(urlsplit(request.url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), signed_hash.lower().encode()):
            raise SignatureInvalid("the body's hash does not fit bodySHA256")
        if not self._validator.validate(request.url, {}, signature):
            raise SignatureInvalid("the signature does not fit the URL")


def _storable(value: str) -> str:
    return value.replace("\0", "\ufffd").encode(errors="replace").decode()


def _form(body: bytes) -> _Form:
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise SignatureInvalid("the body is no form") from error
    return _Form(fields)


def _json_fields(body: bytes) -> Mapping[str, str]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallbackMalformed("the body is not JSON") from error
    if not isinstance(fields, dict):
        raise CallbackMalformed("the body is not a JSON object")
    return {name: str(value) for name, value in fields.items() if value is not None}
