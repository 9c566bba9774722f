"""What a delivery to a bearer's callback URL proves itself with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cryptography.fernet import InvalidToken
from psycopg.rows import tuple_row

from server.db import Database
from server.encryption import Cipher

log = structlog.get_logger()

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
    """The credentials of the live ones of these bearers.

    One whose secrets no key can read any more is left out and told to the log: the others go on.
    """
    rows = await db.fetch_all(_FIND, {"bearer_ids": list(bearer_ids)}, tuple_row)
    found = {}
    for bearer_id, username, password, secret, previous in rows:
        try:
            found[bearer_id] = CallbackCredentials(
                username=username,
                password=cipher.decrypt(password).decode(),
                signing_secrets=tuple(cipher.decrypt(s).decode() for s in (secret, previous) if s is not None),
            )
        except InvalidToken:
            log.error("callback_credentials.unreadable", bearer_id=bearer_id)  # noqa: TRY400 the trace tells nothing
    return found
