"""Rows of accounts as the API shows them."""

from datetime import datetime

from commonservices.v1 import api_key_pb2, bearer_pb2

from server.accounts.tables import ApiKeyRow, BearerRow
from server.clock import timestamp


def bearer_to_proto(row: BearerRow, *, signing_secret: str | None = None) -> bearer_pb2.Bearer:
    """A bearer, never with its password, with its signing secret only when it was just made."""
    return bearer_pb2.Bearer(
        id=row.id,
        bearer_name=row.bearer_name,
        bearer_type=row.bearer_type,
        callback_url=row.callback_url,
        username=row.username,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        signing_secret=signing_secret,
    )


def signing_secret_to_proto(secret: str, previous_expires_at: datetime) -> bearer_pb2.SigningSecret:
    """A secret that was just made."""
    return bearer_pb2.SigningSecret(signing_secret=secret, previous_expires_at=timestamp(previous_expires_at))


def api_key_to_proto(row: ApiKeyRow, *, token: str | None = None) -> api_key_pb2.ApiKey:
    """A key, with its token only when it was just made."""
    return api_key_pb2.ApiKey(
        id=row.id,
        bearer_id=row.bearer_id,
        token=token,
        token_prefix=row.token_prefix,
        created_at=timestamp(row.created_at),
        last_used_at=timestamp(row.last_used_at),
    )
