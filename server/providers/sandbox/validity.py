"""Which creates Twilio refuses, and with which code."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from server.providers.sandbox.answers import Refusal
from server.providers.sandbox.carrier import NO_SENDER, Carrier

MAX_BODY = 1600
MAX_MEDIA = 10
_SEND_AT_LEAST = timedelta(minutes=15)
_SEND_AT_MOST = timedelta(days=35)

_E164 = re.compile(r"\+(?:1[2-9]\d{2}[2-9]\d{6}|[2-9]\d{6,14})")
_HTTP_URL = re.compile(
    r"https?://(?:[^/?#@\s]*@)?(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:[/?#]\S*)?$"
)

# Numbers that Twilio's test credentials answer so, as https://www.twilio.com/docs/iam/test-credentials lists them.
_MAGIC_RECEIVERS = {
    "+15005550001": (21211, "The 'To' number is not a valid phone number."),
    "+15005550002": (21612, "The 'To' phone number is not currently reachable via SMS."),
    "+15005550003": (21408, "Permission to send an SMS has not been enabled for the region of the 'To' number."),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient"),
    "+15005550009": (21614, "'To' number is not a valid mobile number"),
}
_MAGIC_SENDERS = {
    "+15005550001": (21212, "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID."),
    "+15005550008": (21611, "This 'From' number has exceeded the maximum number of queued messages"),
}


def is_phone_number(number: str) -> bool:
    """Whether it is E.164, and in North America one that could be dialled."""
    return _E164.fullmatch(number) is not None


def check_message(carrier: Carrier, form: Mapping[str, str], *, media_urls: list[str]) -> None:
    """Raises Refusal with the code of the first thing wrong, in the order Twilio looks."""
    _check_receiver(form.get("To"))
    _check_sender(carrier, form.get("From"), form.get("MessagingServiceSid"))
    body = form.get("Body", "")
    if not body and not media_urls:
        raise Refusal(400, 21602, "Message body is required.")
    if len(body) > MAX_BODY:
        raise Refusal(400, 21617, f"The concatenated message body exceeds the {MAX_BODY} character limit.")
    if len(media_urls) > MAX_MEDIA:
        raise Refusal(400, 21623, f"Number of media files exceeds the limit of {MAX_MEDIA}.")
    if not all(is_http_url(url) for url in media_urls):
        raise Refusal(400, 21620, "Invalid media URL(s)")
    status_callback = form.get("StatusCallback")
    if status_callback is not None and not is_http_url(status_callback):
        raise Refusal(400, 21609, "The 'StatusCallback' URL is not a valid URL.")
    sender = {"from_": form.get("From"), "service_sid": form.get("MessagingServiceSid")}
    if carrier.handset(form["To"]).opted_out or carrier.has_opted_out(form["To"], **sender):
        raise Refusal(400, 21610, "Attempt to send to unsubscribed recipient")


def check_send_at(form: Mapping[str, str], *, now: float) -> float | None:
    """When a scheduled message is to be sent; None sends it at once. Raises Refusal."""
    if "ScheduleType" not in form:
        return None
    if "MessagingServiceSid" not in form:
        raise Refusal(400, 35118, "MessagingServiceSid is required to schedule a message")
    if "SendAt" not in form:
        raise Refusal(400, 35111, "SendAt timestamp is missing")
    try:
        send_at = datetime.fromisoformat(form["SendAt"]).timestamp()
    except ValueError as error:
        raise Refusal(400, 35114, "SendAt is not an ISO 8601 time") from error
    if not _SEND_AT_LEAST.total_seconds() <= send_at - now <= _SEND_AT_MOST.total_seconds():
        raise Refusal(400, 35114, "SendAt must be between 15 minutes and 35 days ahead")
    return send_at


def _check_receiver(to: str | None) -> None:
    if not to:
        raise Refusal(400, 21604, "A 'To' phone number is required.")
    if to in _MAGIC_RECEIVERS:
        raise Refusal(400, *_MAGIC_RECEIVERS[to])
    if not is_phone_number(to):
        raise Refusal(400, 21211, "The 'To' number is not a valid phone number.")


def _check_sender(carrier: Carrier, from_: str | None, service_sid: str | None) -> None:
    if not from_ and not service_sid:
        raise Refusal(400, 21603, "A 'From' or 'MessagingServiceSid' is required to send a message.")
    if service_sid:
        service = carrier.services.get(service_sid)
        if service is None:
            raise Refusal(400, 21701, "The Messaging Service resource does not exist.")
        if not service.number_sids:
            raise Refusal(400, NO_SENDER, "The Messaging Service does not have a phone number available.")
    if not from_:
        return
    if from_ in _MAGIC_SENDERS:
        code, message = _MAGIC_SENDERS[from_]
        raise Refusal(429 if code == 21611 else 400, code, message)
    if not carrier.owns(from_):
        raise Refusal(400, 21606, "The 'From' phone number provided is not a valid message-capable Twilio number.")


def is_http_url(url: str) -> bool:
    """Absolute, and with a host name that could exist: Twilio refuses underscores."""
    return _HTTP_URL.match(url) is not None
