"""The migrations make what the tables say."""

from alembic import command

from server.migrations import config
from server.stack.schema import current_revision, newest_revision


def test_migrated_schema_is_the_tables(database_url: str) -> None:
    command.check(config(database_url))


def test_the_newest_revision_is_known_without_alembic(database_url: str) -> None:
    assert current_revision(database_url) == newest_revision()
