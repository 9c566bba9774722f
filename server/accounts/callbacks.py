"""What a delivery to a bearer's callback URL proves itself with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg.rows import tuple_row

from server.db import Database
from server.encryption import Cipher

_FIND = """
SELECT id, username, password_encrypted, signing_secret_encrypted,
       CASE WHEN previous_signing_secret_expires_at > now() THEN previous_signing_secret_encrypted END
FROM bearers WHERE id = ANY(%(bearer_ids)s) AND deleted_at IS NULL
"""


@dataclass(frozen=True)
class CallbackCredentials:
    """Basic authentication and every live signing secret (`whsec_…`), the newest first."""

    username: str
    password: str = field(repr=False)
    signing_secrets: tuple[str, ...] = field(repr=False)


async def callback_credentials(
    db: Database, cipher: Cipher, bearer_ids: Sequence[int]
) -> dict[int, CallbackCredentials]:
    """The credentials of the live ones of these bearers."""
    rows = await db.fetch_all(_FIND, {"bearer_ids": list(bearer_ids)}, tuple_row)
    return {
        bearer_id: CallbackCredentials(
            username=username,
            password=cipher.decrypt(password).decode(),
            signing_secrets=tuple(cipher.decrypt(s).decode() for s in (secret, previous) if s is not None),
        )
        for bearer_id, username, password, secret, previous in rows
    }
