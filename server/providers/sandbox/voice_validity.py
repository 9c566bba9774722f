"""Who may be called, from which number, and how machines are detected: what creates of calls are refused for."""

from server.providers.sandbox.answers import Refusal
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.lookups import national_format
from server.providers.sandbox.validity import is_phone_number
from server.providers.sandbox.voice_forms import CANNOT, Form
from server.providers.sandbox.voice_phones import is_client
from server.providers.sandbox.voice_records import MachineDetection

# Numbers that Twilio's test credentials answer so, as https://www.twilio.com/docs/iam/test-credentials lists them.
_MAGIC_RECEIVERS = {
    "+15005550001": (21217, "Phone number does not appear to be valid"),
    "+15005550002": (21214, "'To' phone number cannot be reached"),
    "+15005550003": (21215, "Geo Permission configuration is not permitting call"),
    "+15005550004": (21216, "Call blocked by Twilio"),
}
_MAGIC_SENDERS = {"+15005550001": (21212, "Invalid 'From' Number")}


def check_people(carrier: Carrier, form: Form) -> tuple[str, str]:
    """To and From of a call that is to be made. Raises Refusal with the code of the first thing wrong."""
    to, from_ = form.text("To"), form.text("From")
    if not to:
        raise Refusal(400, 21201, "No 'To' number is specified")
    if not from_:
        raise Refusal(400, 21213, "Caller phone number is required")
    if to in _MAGIC_RECEIVERS:
        raise Refusal(400, *_MAGIC_RECEIVERS[to])
    if not is_phone_number(to) and not (is_client(to) and to.partition(":")[2]):
        raise Refusal(400, 21211, f"Invalid 'To' Phone Number: {to}")
    if from_ in _MAGIC_SENDERS:
        raise Refusal(400, *_MAGIC_SENDERS[from_])
    if is_client(to) and is_client(from_):
        return to, from_
    if not is_phone_number(from_):
        raise Refusal(400, 21212, f"Invalid 'From' Number: {from_}")
    if not carrier.owns(from_):
        said = f"The source phone number provided, {from_}, is not yet verified for your account. You may only make"
        raise Refusal(400, 21210, f"{said} calls from phone numbers that you've verified or purchased from Twilio.")
    return to, from_


def machine_detection_of(form: Form) -> MachineDetection | None:
    """Whether and how it is detected who answers. How long things take is checked, and not looked at."""
    mode = form.word("MachineDetection", "Enable", "DetectMessageEnd")
    form.whole("MachineDetectionTimeout", 3, 59)
    form.whole("MachineDetectionSpeechThreshold", 1000, 6000)
    form.whole("MachineDetectionSpeechEndThreshold", 500, 5000)
    form.whole("MachineDetectionSilenceTimeout", 2000, 10_000)
    is_async = form.flag("AsyncAmd")
    callback = form.webhook("AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod")
    if mode is None:
        return None
    if is_async and callback is None:
        raise Refusal(400, CANNOT, "the sandbox knows AsyncAmd with an AsyncAmdStatusCallback only")
    return MachineDetection(mode, callback if is_async else None)


def formatted(address: str) -> str:
    """A number of North America as people there write it, anything else as it is."""
    return national_format(address) if address.startswith("+1") else address
