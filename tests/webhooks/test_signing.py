"""Standard Webhooks signatures."""

import base64
import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from server.webhooks import signing

_SECRETS = st.binary(min_size=24, max_size=64).map(lambda raw: "whsec_" + base64.b64encode(raw).decode())


def test_signature_is_that_of_the_specification() -> None:
    made = signing.headers(
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
        secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(body=st.binary(max_size=200), secrets=st.lists(_SECRETS, min_size=1, max_size=3), at=st.integers(0, 2**40))
def test_each_live_secret_signs(body: bytes, secrets: list[str], at: int) -> None:
    signatures = signing.headers(webhook_id="id", timestamp=at, body=body, secrets=secrets)["webhook-signature"]

    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    expected = [hmac.new(key, f"id.{at}.".encode() + body, hashlib.sha256).digest() for key in keys]
    assert [base64.b64decode(s.removeprefix("v1,")) for s in signatures.split(" ")] == expected
