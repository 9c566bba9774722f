"""The migrations make what the tables say, and carry what is there over."""

from collections.abc import Sequence

import psycopg
import pytest
from alembic import command
from sqlalchemy import make_url

from server.migrations import config, migrate
from server.stack.schema import current_revision, newest_revision

# Two bearers with a conversation each, the second of them deleted, and what they have sent.
_BEFORE_0002 = """
INSERT INTO bearers (id, bearer_name, bearer_type, username, password_encrypted, signing_secret_encrypted, deleted_at)
OVERRIDING SYSTEM VALUE
VALUES (1, 'live', 'Application', 'user', '', '', NULL), (2, 'deleted', 'Application', 'user', NULL, NULL, now());
INSERT INTO customers (global_customer_id) VALUES ('customer');
INSERT INTO messaging_services (customer_id, name, twilio_messaging_sid) SELECT id, 'school', 'MG1' FROM customers;
INSERT INTO conversations (id, bearer_id, client_conversation_id) OVERRIDING SYSTEM VALUE
VALUES (1, 1, 'first'), (2, 1, 'last'), (3, 2, 'of nobody');
INSERT INTO messages (message_uuid, bearer_id, conversation_id, provider, messaging_service_sid, sender_number,
    receiver_number, message_body, media_urls, message_type, priority, internal_status, message_sid, sequence)
SELECT uuidv7(), bearer_id, conversation_id, 'twilio', 'MG1', sender,
    receiver, '', '{}', 'sms', 'default', status, sid, 1
FROM (VALUES
    (1, 1, '+12065550100', '+12065550190', 'delivered', 'SM1'),
    (1, 2, '+12065550100', '+12065550190', 'sent', 'SM2'),
    (1, 2, '+12065550101', '+12065550190', 'pending', NULL),
    (2, 3, '+12065550100', '+12065550191', 'failed', 'SM4'),
    (2, 3, '+12065550100', '+12065550190', 'failed', 'SM5')
) AS sent (bearer_id, conversation_id, sender, receiver, status, sid);
"""

_SCHEMA = """
SELECT table_name, column_name, data_type, is_nullable, coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text, ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


def test_migrated_schema_is_the_tables(database_url: str) -> None:
    command.check(config(database_url))


def test_the_newest_revision_is_known_without_alembic(database_url: str) -> None:
    assert current_revision(database_url) == newest_revision()


@pytest.fixture
def empty_url(database_url: str) -> str:
    """A database without anything."""
    url = make_url(database_url).set(database="older").render_as_string(hide_password=False)
    with psycopg.connect(database_url, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS older")
        server.execute("CREATE DATABASE older")
    return url


def test_revisions_are_undone_and_made_again(empty_url: str) -> None:
    migrate(empty_url)
    before = _schema(empty_url)

    command.downgrade(config(empty_url), "0001")
    first = _schema(empty_url)
    command.downgrade(config(empty_url), "base")
    command.upgrade(config(empty_url), "0001")
    assert _schema(empty_url) == first != before
    migrate(empty_url)

    assert _schema(empty_url) == before
    command.check(config(empty_url))


def _schema(url: str) -> Sequence[tuple[str, ...]]:
    """Every column, index and constraint."""
    with psycopg.connect(url) as connection:
        return connection.execute(_SCHEMA).fetchall()


@pytest.fixture
def older_url(empty_url: str) -> str:
    """A database of the first revision, with what it may hold."""
    url = empty_url
    command.upgrade(config(url), "0001")
    with psycopg.connect(url) as connection:
        connection.execute(_BEFORE_0002)
    return url


def test_answers_belong_to_the_last_conversation_of_two_numbers_that_is_somebodys(older_url: str) -> None:
    migrate(older_url)

    with psycopg.connect(older_url) as connection:
        pairings = connection.execute("SELECT twilio_number, phone_number, conversation_id FROM pairings ORDER BY 1")
        assert pairings.fetchall() == [("+12065550100", "+12065550190", 2), ("+12065550101", "+12065550190", 2)]
        contacts = connection.execute("SELECT conversation_id, phone_number, twilio_number FROM participants")
        assert contacts.fetchall() == [(2, "+12065550190", "+12065550100")]


def test_messages_know_their_service_and_are_asked_about_while_they_are_open(older_url: str) -> None:
    migrate(older_url)

    with psycopg.connect(older_url) as connection:
        services = connection.execute("SELECT DISTINCT messaging_service_id FROM messages").fetchall()
        assert services == connection.execute("SELECT id FROM messaging_services").fetchall()
        asked_about = connection.execute("SELECT message_sid FROM messages WHERE check_at IS NOT NULL")
        assert asked_about.fetchall() == [("SM2",)]
