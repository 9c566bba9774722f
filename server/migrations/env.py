"""How Alembic reaches the database."""

from alembic import context
from sqlalchemy import NullPool, create_engine, make_url, text

from server.tables import METADATA

# Two starting processes must not migrate at once.
_MIGRATION_LOCK = 0x636F6D6D


def run() -> None:
    """Run the migrations in one transaction under a lock."""
    url = make_url(context.config.attributes["database_url"]).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=METADATA, compare_server_default=True, transaction_per_migration=True
        )
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.commit()
        with context.begin_transaction():
            context.run_migrations()


run()
