"""Proves and reads Twilio's callbacks. Imports nothing of the SDK but its validator: every api process loads this."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from twilio.request_validator import RequestValidator

from server.providers.ports import CallbackMalformed, MessageCallback, SignatureInvalid, SignedRequest
from server.providers.twilio import statuses

# Twilio sends some thirty fields; more than this is nobody's callback and not worth parsing.
_MAX_FIELDS = 500


class _Form(dict[str, list[str]]):
    """Form fields as the validator wants them: it signs every distinct value of a repeated name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


class TwilioMessageCallbackReader:
    """ports.MessageCallbackReader for callbacks signed with one account's auth token."""

    def __init__(self, *, auth_token: str) -> None:
        self._validator = RequestValidator(auth_token)

    def read(self, request: SignedRequest) -> MessageCallback:
        """Verify on the raw body, then parse: nothing of an unproven body is looked at beyond what was signed."""
        fields = self._verified_fields(request)
        message_sid = fields.get("MessageSid")
        provider_status = fields.get("MessageStatus")
        missing = [name for name in ("MessageSid", "MessageStatus") if not fields.get(name)]
        if not message_sid or not provider_status:
            raise CallbackMalformed(f"missing: {', '.join(missing)}")
        read = (message_sid, provider_status, fields.get("ErrorCode", ""))
        if b"\0" in request.body or any("\0" in value for value in read):
            raise CallbackMalformed("the body, or a field that is read, has the NUL character")
        report = statuses.report(
            message_sid=message_sid, provider_status=provider_status, error_code=fields.get("ErrorCode") or None
        )
        return MessageCallback(report=report, message_uuid=_message_uuid(request.url))

    def _verified_fields(self, request: SignedRequest) -> Mapping[str, str]:
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

    def _verify_json(self, request: SignedRequest, signature: str) -> None:
        """The URL is signed and carries the body's hash. The validator would want the raw body as text: hashed here."""
        signed_hash = parse_qs(urlsplit(request.url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), signed_hash.lower().encode()):
            raise SignatureInvalid("the body's hash does not fit bodySHA256")
        if not self._validator.validate(request.url, {}, signature):
            raise SignatureInvalid("the signature does not fit the URL")


def _form(body: bytes) -> _Form:
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise SignatureInvalid("the body is no form") from error
    return _Form(fields)


def _json_fields(body: bytes) -> Mapping[str, str]:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise CallbackMalformed("the body is not JSON") from error
    if not isinstance(fields, dict):
        raise CallbackMalformed("the body is not a JSON object")
    return {name: str(value) for name, value in fields.items() if value is not None}


def _message_uuid(url: str) -> UUID | None:
    """The uuid our status callback URL carries; a messaging service's own callback URL has none."""
    value = parse_qs(urlsplit(url).query).get("message_uuid")
    if value is None:
        return None
    try:
        return UUID(value[0])
    except ValueError as error:
        raise CallbackMalformed("message_uuid in the URL is not a UUID") from error
