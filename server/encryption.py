"""Secrets at rest: encrypted with the first key, readable with any, so that keys can be rotated."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, MultiFernet


class Cipher:
    """Encrypts what must be read again: callback passwords, signing secrets, remembered answers."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, plain: bytes) -> bytes:
        """The ciphertext, with its time and an authentication tag."""
        return self._fernet.encrypt(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        """The plain bytes. Raises cryptography.fernet.InvalidToken where no key fits."""
        return self._fernet.decrypt(encrypted)
