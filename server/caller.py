"""Who calls: what authentication knows and every query starts from."""

from dataclasses import dataclass
from enum import StrEnum


class BearerType(StrEnum):
    """The three roles, spelled as documented."""

    ADMIN = "Admin"
    APPLICATION = "Application"
    USER = "User"


@dataclass(frozen=True)
class Caller:
    """The bearer behind the key of this request."""

    bearer_id: int
    bearer_type: BearerType
    api_key_id: int

    @property
    def is_admin(self) -> bool:
        """Whether every bearer's resources are the caller's to see."""
        return self.bearer_type is BearerType.ADMIN

    @property
    def owner_id(self) -> int | None:
        """The bearer whose resources a query is limited to; None means everybody's."""
        return None if self.is_admin else self.bearer_id
