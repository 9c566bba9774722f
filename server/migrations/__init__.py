"""Alembic, run from code: `migrate` is what the command, the local stack and the tests call."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def config(database_url: str) -> Config:
    """Alembic's configuration; there is no alembic.ini."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    alembic.set_main_option("file_template", "%%(year)d%%(month).2d%%(day).2d_%%(slug)s")
    alembic.attributes["database_url"] = database_url
    return alembic


def migrate(database_url: str) -> None:
    """Bring the schema to the newest revision; one process at a time, the others wait."""
    command.upgrade(config(database_url), "head")
