"""Which revision a database has and should have, found out without loading Alembic, which takes a second."""

import re
from pathlib import Path

import psycopg

from server.stack.errors import StackError

VERSIONS = Path(__file__).parent.parent / "migrations" / "versions"


def newest_revision() -> str:
    """The revision that no other one follows."""
    texts = [path.read_text() for path in VERSIONS.glob("*.py")]
    made = {name for text in texts for name in re.findall(r'^revision(?:: str)? = "([^"]+)"', text, re.MULTILINE)}
    followed = {name for text in texts for name in re.findall(r'^down_revision\b.* = "([^"]+)"', text, re.MULTILINE)}
    (head,) = made - followed
    return str(head)


def current_revision(database_url: str) -> str | None:
    """The revision of the database, None where it is empty."""
    try:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            row = connection.execute("SELECT to_regclass('alembic_version')::text").fetchone()
            if row is None or row[0] is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    except psycopg.OperationalError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise StackError(f"Cannot connect to the database: {reason}") from error
