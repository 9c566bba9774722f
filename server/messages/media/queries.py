"""The statements of inbound media."""

from server.events import outbox
from server.messages import queries

# Leases a file that is due.
CLAIM = """
WITH due AS (
    SELECT id FROM media_files WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE media_files f SET due_at = now() + %(lease)s, attempts = f.attempts + 1
FROM due, messages m
WHERE f.id = due.id AND m.id = f.message_id
RETURNING f.id, f.message_id, f.place, f.url, f.attempts, f.created_at, m.message_uuid, m.bearer_id, m.provider
"""

# Gives a claim back for later.
POSTPONE = """
UPDATE media_files SET due_at = now() + %(delay)s
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
"""

# Records what became of a file; answers no row if it is settled, or another worker's.
SETTLE = """
UPDATE media_files SET due_at = NULL, storage_key = %(storage_key)s, error = %(error)s,
    content_type = coalesce(%(content_type)s, content_type)
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
RETURNING id
"""

FILES = """
SELECT id, place, storage_key, error, due_at IS NOT NULL AS is_due FROM media_files
WHERE message_id = %(message_id)s ORDER BY place
"""

MESSAGE = queries.GET.replace("m.message_uuid = %(message_uuid)s", "m.id = %(message_id)s")

# Whoever changes what is stored of a message holds this first.
LOCK = "SELECT sequence FROM messages WHERE id = %(message_id)s FOR UPDATE"

LOCK_BY_UUID = f"{queries.GET} FOR UPDATE OF m"

LOCK_OWN_BY_UUID = f"{queries.GET_OWN} FOR UPDATE OF m"

# A file that is settled stays so: as many as before are the same as before.
COUNT_OTHERS_DUE = """
SELECT count(*) FROM media_files WHERE message_id = %(message_id)s AND id <> %(id)s AND due_at IS NOT NULL
"""

# Writes where a message's media are, and the event that tells it.
STORE = f"""
WITH saved AS (
    UPDATE messages SET stored_media = %(stored_media)s, error_code = %(error_code)s,
        error_description = %(error_description)s, sequence = %(sequence)s, updated_at = %(updated_at)s
    WHERE id = %(id)s RETURNING id
),
event AS ({outbox.append_from("saved")})
SELECT id FROM saved
"""

# Nobody fetches what somebody else has stored.
CANCEL = """
UPDATE media_files SET due_at = NULL, error = %(error)s WHERE message_id = %(message_id)s AND due_at IS NOT NULL
"""
