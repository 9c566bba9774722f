"""The statements of the reconciler."""

from server.messages.message import FINAL
from server.messages.queries import JOINED, SELECTED

_FINAL = ", ".join(f"'{status}'" for status in sorted(FINAL))
_OPEN = f"message_sid IS NOT NULL AND internal_status NOT IN ({_FINAL})"

# Takes up to `limit` messages that the provider is to be asked about, and plans when it is asked again.
CLAIM = f"""
WITH due AS (
    SELECT id FROM messages WHERE check_at <= now() ORDER BY check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
m AS (
    UPDATE messages
    SET checks = checks + 1, check_at = now() + (%(delays)s::interval[])[least(checks + 1, cardinality(%(delays)s))]
    FROM due WHERE messages.id = due.id RETURNING messages.*
)
SELECT {SELECTED} FROM m {JOINED}
"""

_AS_CLAIMED = "id = %(id)s AND sequence = %(sequence)s AND checks = %(checks)s AND check_at IS NOT NULL"

# The provider was not asked: later, and not counted.
POSTPONE = f"UPDATE messages SET checks = checks - 1, check_at = now() + %(delay)s WHERE {_AS_CLAIMED}"

# The provider is not asked any more, unless it tells something by itself.
STOP_ASKING = f"UPDATE messages SET check_at = NULL WHERE {_AS_CLAIMED}"

# Has the provider asked about every message without a final status that had no news for so long. Reads the whole table.
MAKE_DUE = f"UPDATE messages SET checks = 0, check_at = now() WHERE {_OPEN} AND updated_at <= now() - %(older_than)s"

# The messages without a final status. Reads the whole table.
COUNT_OPEN = f"""
SELECT provider, internal_status, count(*) AS messages FROM messages WHERE {_OPEN}
GROUP BY provider, internal_status ORDER BY provider, internal_status
"""
