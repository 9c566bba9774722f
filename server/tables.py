"""Every table of the schema: for Alembic to compare with, and for every process, since a row can only be written once
the tables are loaded that it refers to."""

from server import idempotency
from server.accounts import tables as accounts
from server.calls import tables as calls
from server.conversations import tables as conversations
from server.db import Base
from server.events import tables as events
from server.messages import tables as messages
from server.numbers import tables as numbers
from server.video import tables as video
from server.webhooks import tables as webhooks

MODULES = (accounts, calls, conversations, events, idempotency, messages, numbers, video, webhooks)

METADATA = Base.metadata
