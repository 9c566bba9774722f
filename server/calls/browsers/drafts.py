"""What voice tokens and browsers' calls are asked for with, checked: what is wrong is told all at once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

from commonservices.v1 import sdk_call_service_pb2 as pb

from server.conversations.keys import NAMING_KEYS, ConversationKey, read_conversation_key
from server.errors import FieldViolation, InvalidArgument
from server.validation import checking

_DEFAULT_TTL = 3600

# The texts of a browser's call that a voice token has too, under the same names and rules; its `To` is the token's
# phone_number.
_SHARED = (*NAMING_KEYS, "messaging_service_sid", "global_customer_id", "callback_url")
_CONTACT = "To"
_REQUEST_ID = "request_id"
_LONGEST_REQUEST_ID = 255


@dataclass(frozen=True)
class VoiceTokenDraft:
    """A voice token that may be made. Its conversation is named by `any_conversation_id`, which is any of its ids, or
    by `conversation`. None stands for what was not given."""

    moderator_id: str
    any_conversation_id: str | None
    conversation: ConversationKey | None
    client_call_id: str | None
    callback_url: str | None
    phone_number: str | None
    messaging_service_sid: str | None
    global_customer_id: str | None
    ttl: timedelta


@dataclass(frozen=True)
class SdkCallDraft:
    """A browser's call that may be made. Without a conversation it names the contact, and what to call from."""

    phone_number: str | None
    conversation: ConversationKey | None
    messaging_service_sid: str | None
    global_customer_id: str | None
    callback_url: str | None
    request_id: str | None

    def fingerprint(self) -> bytes:
        """What is asked for, whatever its request id."""
        asked = asdict(replace(self, request_id=None))
        return hashlib.sha256(b"RespondToSdkCall\0" + json.dumps(asked).encode()).digest()


def read_voice_token(request: pb.CreateVoiceTokenRequest) -> VoiceTokenDraft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    if not request.HasField("conversation"):
        # Of a conversation that is not there, its fields are not bad as well.
        raise InvalidArgument([FieldViolation("conversation", "is required")])
    given = request.conversation
    with checking(request) as bad:
        if not given.moderator_id:
            bad.add("conversation.moderator_id", "is required")
        bad.identities(
            given,
            "moderator_id",
            "conversation_id",
            "client_conversation_id",
            "client_call_id",
            "messaging_service_sid",
            "global_customer_id",
            within="conversation",
        )
        conversation = read_conversation_key(given, bad, within="conversation")
        if given.conversation_id and conversation is not None:
            bad.add(f"conversation.{conversation.name}", "give it or conversation_id, not both")
        if not given.conversation_id and conversation is None:
            bad.add("conversation.conversation_id", "is required")
        callback_url = bad.http_url("conversation.callback_url", given.callback_url) if given.callback_url else None
        phone_number = None
        if given.phone_number:
            phone_number = bad.phone_number("conversation.phone_number", given.phone_number)
    return VoiceTokenDraft(
        moderator_id=given.moderator_id,
        any_conversation_id=given.conversation_id or None,
        conversation=conversation,
        client_call_id=given.client_call_id or None,
        callback_url=callback_url,
        phone_number=phone_number,
        messaging_service_sid=given.messaging_service_sid or None,
        global_customer_id=given.global_customer_id or None,
        ttl=timedelta(seconds=given.ttl if given.HasField("ttl") else _DEFAULT_TTL),
    )


def read_sdk_call(body: bytes) -> SdkCallDraft:
    """The draft of a JSON body. Raises InvalidArgument naming every bad field; what is not known is not looked at."""
    fields = _object(body)
    texts, problems = _texts(fields)
    contact = texts.pop(_CONTACT, "")
    request_id = texts.pop(_REQUEST_ID, "")
    given = pb.NewVoiceToken()
    for name, value in texts.items():
        setattr(given, name, value)
    with checking(given) as bad:
        for name, problem in problems.items():
            bad.add(name, problem)
        bad.identities(given, "client_conversation_id", "messaging_service_sid", "global_customer_id")
        conversation = read_conversation_key(given, bad)
        callback_url = bad.http_url("callback_url", given.callback_url) if given.callback_url else None
        phone_number = bad.phone_number(_CONTACT, contact) if contact else None
        if len(request_id) > _LONGEST_REQUEST_ID:
            bad.add(_REQUEST_ID, f"must be at most {_LONGEST_REQUEST_ID} characters")
        elif "\0" in request_id:
            bad.add(_REQUEST_ID, "must not contain the NUL character")
        if conversation is None:
            if phone_number is None:
                bad.add(_CONTACT, "is required where no conversation is named")
            if not given.messaging_service_sid and not given.global_customer_id:
                bad.add(
                    "client_conversation_id",
                    "name a conversation, or a messaging_service_sid or global_customer_id to call from",
                )
    return SdkCallDraft(
        phone_number=phone_number,
        conversation=conversation,
        messaging_service_sid=given.messaging_service_sid or None,
        global_customer_id=given.global_customer_id or None,
        callback_url=callback_url,
        request_id=request_id or None,
    )


def _object(body: bytes) -> Mapping[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument([FieldViolation("body", "is not JSON")]) from error
    if not isinstance(fields, dict):
        raise InvalidArgument([FieldViolation("body", "is not a JSON object")])
    return fields


def _texts(fields: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    """The texts there are by their names, and what is wrong with those that are none. A null is as good as nothing."""
    texts: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in (_CONTACT, *_SHARED, _REQUEST_ID):
        value = fields.get(name)
        if isinstance(value, str) and _is_unicode(value):
            texts[name] = value
        elif value is not None:
            problems[name] = "is not valid Unicode" if isinstance(value, str) else "must be a string"
    return texts, problems


def _is_unicode(value: str) -> bool:
    """Whether it is a text; JSON can spell half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
