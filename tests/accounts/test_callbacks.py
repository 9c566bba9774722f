"""Credentials of callbacks when a key is missing."""

from cryptography.fernet import Fernet

from server.accounts.callbacks import callback_credentials
from server.db import Database
from server.encryption import Cipher
from tests.conftest import MakeClient


async def test_bearer_whose_secrets_no_key_reads_does_not_stop_the_others(
    db: Database, cipher: Cipher, client_of: MakeClient
) -> None:
    lost, other = await client_of(), await client_of()
    foreign = Fernet(Fernet.generate_key()).encrypt(b"password")
    parameters = {"foreign": foreign, "id": lost.bearer_id}
    await db.execute("UPDATE bearers SET password_encrypted = %(foreign)s WHERE id = %(id)s", parameters)

    found = await callback_credentials(db, cipher, [lost.bearer_id, other.bearer_id])

    assert list(found) == [other.bearer_id]


def test_rotated_keys_read_what_the_old_one_wrote() -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    written = Cipher([old]).encrypt(b"secret")

    assert Cipher([new, old]).decrypt(written) == b"secret"
