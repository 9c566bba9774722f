"""Secrets that sign webhooks: `whsec_` and the base64 of 24 to 64 random bytes (Standard Webhooks 1.0.0)."""

import base64
import secrets

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    """A secret nobody has seen."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()
