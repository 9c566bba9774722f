"""The statements of webhooks.

A lane is the pending deliveries of one resource to one endpoint; its first one is always due (or leased). Whoever
changes a lane takes row locks on it first, in rising order of ids, in a statement of its own, so that the statements
after it see what those who held the locks have committed. Order of locks: bearer, deliveries, endpoints.
"""

from dataclasses import fields

from server.events import relay
from server.webhooks.delivery import Delivery, DeliveryStatus

# Deliveries of a deleted bearer are made no more; deleting one waits for this.
LOCK_BEARERS = """
SELECT id FROM bearers WHERE id = ANY(%(bearer_ids)s) AND deleted_at IS NULL ORDER BY id FOR KEY SHARE
"""

_EVENTS = """
SELECT * FROM unnest(%(event_ids)s::bigint[], %(positions)s::bigint[], %(bearer_ids)s::bigint[], %(types)s::text[],
    %(resource_uuids)s::uuid[], %(urls)s::text[])
    AS given (event_id, position, bearer_id, event_type, resource_uuid, url)
WHERE url IS NOT NULL
"""

# Looks before it inserts, because a conflict would use up an id.
ADD_ENDPOINTS = f"""
INSERT INTO webhook_endpoints (bearer_id, url)
SELECT DISTINCT bearer_id, url FROM ({_EVENTS}) AS event JOIN bearers ON bearers.id = bearer_id
WHERE deleted_at IS NULL AND NOT EXISTS (
    SELECT FROM webhook_endpoints known WHERE known.bearer_id = event.bearer_id AND known.url = event.url
)
ORDER BY bearer_id, url ON CONFLICT DO NOTHING
"""

# All of a lane, not only its first: the one promoted while this waits must not end before the insert that follows.
LOCK_LANES_OF_EVENTS = f"""
WITH lane AS MATERIALIZED (
    SELECT DISTINCT endpoint.id AS endpoint_id, resource_uuid
    FROM ({_EVENTS}) AS event JOIN webhook_endpoints endpoint USING (bearer_id, url)
)
SELECT pending.id FROM lane JOIN webhook_deliveries pending USING (endpoint_id, resource_uuid)
WHERE status = 'pending' ORDER BY pending.id FOR UPDATE OF pending
"""

ADD_DELIVERIES = f"""
INSERT INTO webhook_deliveries
    (endpoint_id, event_id, bearer_id, event_type, resource_uuid, status, last_error, due_at)
SELECT endpoint.id, event_id, bearer_id, event_type, resource_uuid,
    CASE WHEN disabled_at IS NULL THEN 'pending' ELSE 'dead_lettered' END,
    CASE WHEN disabled_at IS NOT NULL THEN %(disabled)s END,
    CASE WHEN disabled_at IS NULL AND row_number() OVER (PARTITION BY endpoint.id, resource_uuid ORDER BY position) = 1
        AND NOT EXISTS (
            SELECT FROM webhook_deliveries earlier WHERE earlier.endpoint_id = endpoint.id
            AND earlier.resource_uuid = event.resource_uuid AND earlier.status = 'pending'
        ) THEN now() END
FROM ({_EVENTS}) AS event JOIN webhook_endpoints endpoint USING (bearer_id, url) JOIN bearers ON bearers.id = bearer_id
WHERE deleted_at IS NULL ORDER BY position
"""

# Leases due deliveries: walks the endpoints that have any, from `after` on, and takes of each its oldest ones, no more
# than it has slots free, nor than begin within its free bytes of payload; of all those that begin within `bytes`. Two
# index probes an endpoint, whatever waits behind it, and one a delivery for a size, which does not read the payload.
CLAIM = """
WITH RECURSIVE endpoint AS (
    (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL AND endpoint_id > %(after)s
     ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM webhook_deliveries
            WHERE due_at IS NOT NULL AND webhook_deliveries.endpoint_id > endpoint.endpoint_id
            ORDER BY endpoint_id LIMIT 1)
    FROM endpoint WHERE endpoint_id IS NOT NULL
),
due AS MATERIALIZED (
    SELECT endpoint_id, due.id, due_at, size, url,
        disabled_at IS NOT NULL AS is_disabled, failing_since IS NOT NULL AS is_failing
    FROM endpoint
    CROSS JOIN LATERAL (
        SELECT url, disabled_at, failing_since, CASE WHEN failing_since IS NULL THEN %(slots)s::bigint ELSE 1 END
            - coalesce((%(busy)s::jsonb ->> id::text)::bigint, 0) AS free,
            %(endpoint_bytes)s::bigint - coalesce((%(busy_bytes)s::jsonb ->> id::text)::bigint, 0) AS free_bytes
        FROM webhook_endpoints WHERE id = endpoint_id OFFSET 0
    ) AS known
    CROSS JOIN LATERAL (
        SELECT id, due_at, size FROM (
            SELECT id, due_at, size, sum(size) OVER (ORDER BY due_at, id) - size AS before
            FROM (
                SELECT id, due_at, event_id FROM webhook_deliveries
                WHERE webhook_deliveries.endpoint_id = endpoint.endpoint_id AND due_at <= now()
                ORDER BY due_at LIMIT CASE WHEN free_bytes > 0 THEN greatest(0, free) ELSE 0 END FOR UPDATE SKIP LOCKED
            ) AS oldest
            CROSS JOIN LATERAL (
                SELECT octet_length(payload) AS size FROM events WHERE events.id = oldest.event_id OFFSET 0
            ) AS event
        ) AS sized
        WHERE before < free_bytes
    ) AS due
    LIMIT %(limit)s
),
fitting AS (
    SELECT *, sum(size) OVER (ORDER BY endpoint_id, due_at, id) - size AS before FROM due
),
claimed AS (
    UPDATE webhook_deliveries
    SET due_at = now() + %(lease)s, attempts = attempts + 1, attempts_in_run = attempts_in_run + 1
    FROM fitting WHERE webhook_deliveries.id = fitting.id AND before < %(bytes)s
    RETURNING webhook_deliveries.*, url, is_disabled, is_failing
)
SELECT claimed.id, uuid, claimed.endpoint_id, claimed.bearer_id, claimed.event_type, claimed.resource_uuid, attempts,
    attempts_in_run, url, is_disabled, is_failing, events.event_id, payload
FROM claimed JOIN events ON events.id = claimed.event_id ORDER BY endpoint_id
"""

_ATTEMPTS = """
SELECT * FROM unnest(%(ids)s::bigint[], %(numbers)s::bigint[], %(statuses)s::text[], %(delays)s::interval[],
    %(attempted_ats)s::timestamptz[], %(durations)s::bigint[], %(response_statuses)s::bigint[],
    %(response_bodies)s::text[], %(errors)s::text[])
    AS given (id, number, status, delay, attempted_at, duration_ms, response_status, response_body, error)
"""

# The due ones of each lane in which an attempt ended: whoever ends or adds one locks at least these.
LOCK_LANES_OF_ATTEMPTS = """
WITH lane AS MATERIALIZED (
    SELECT DISTINCT endpoint_id, resource_uuid FROM webhook_deliveries WHERE id = ANY(%(ids)s)
)
SELECT due.id FROM lane JOIN webhook_deliveries due USING (endpoint_id, resource_uuid)
WHERE status = 'pending' AND due_at IS NOT NULL ORDER BY due.id FOR UPDATE OF due
"""

# Keeps the attempts that are still their delivery's newest claim. One that succeeded counts even where the delivery was
# dead-lettered meanwhile because its endpoint was disabled.
RECORD = f"""
WITH attempt AS MATERIALIZED ({_ATTEMPTS}),
recorded AS (
    UPDATE webhook_deliveries SET status = attempt.status,
        due_at = CASE WHEN attempt.status = 'pending' THEN now() + delay END,
        delivered_at = CASE WHEN attempt.status = 'delivered' THEN now() END,
        last_response_status = response_status, last_error = error
    FROM attempt
    WHERE webhook_deliveries.id = attempt.id AND attempts = number
      AND (webhook_deliveries.status = 'pending'
           OR webhook_deliveries.status = 'dead_lettered' AND attempt.status = 'delivered')
    RETURNING webhook_deliveries.id
)
INSERT INTO webhook_attempts
    (delivery_id, number, attempted_at, duration_ms, response_status, response_body, error)
SELECT id, number, attempted_at, duration_ms, response_status, response_body, error
FROM attempt JOIN recorded USING (id) ON CONFLICT DO NOTHING
"""

# Gives the turn to the first pending delivery of each lane in which one has ended.
PROMOTE = """
WITH lane AS MATERIALIZED (
    SELECT DISTINCT endpoint_id, resource_uuid FROM webhook_deliveries WHERE id = ANY(%(ids)s) AND status <> 'pending'
),
first AS MATERIALIZED (
    SELECT pending.id FROM lane CROSS JOIN LATERAL (
        SELECT id, due_at FROM webhook_deliveries
        WHERE webhook_deliveries.endpoint_id = lane.endpoint_id
          AND webhook_deliveries.resource_uuid = lane.resource_uuid AND status = 'pending'
        ORDER BY id LIMIT 1
    ) AS pending WHERE due_at IS NULL
)
UPDATE webhook_deliveries SET due_at = now() FROM first WHERE webhook_deliveries.id = first.id
"""

MARK_ENDPOINTS = """
WITH changed AS MATERIALIZED (
    SELECT id FROM webhook_endpoints
    WHERE id = ANY(%(working)s) AND failing_since IS NOT NULL
       OR id = ANY(%(failing)s) AND failing_since IS NULL
       OR id = ANY(%(gone)s) AND disabled_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE webhook_endpoints SET
    failing_since = CASE WHEN webhook_endpoints.id = ANY(%(working)s) THEN NULL ELSE coalesce(failing_since, now()) END,
    disabled_at = CASE WHEN webhook_endpoints.id = ANY(%(gone)s) THEN now() ELSE disabled_at END
FROM changed WHERE webhook_endpoints.id = changed.id
"""

# Up to `limit` whole lanes of endpoints that are disabled, or will be in this transaction.
_LOCK_LANES_OF_ENDPOINTS = """
WITH due AS MATERIALIZED (
    SELECT endpoint_id, resource_uuid FROM webhook_deliveries
    WHERE endpoint_id IN (SELECT id FROM webhook_endpoints WHERE {which}) AND due_at IS NOT NULL LIMIT %(limit)s
)
SELECT endpoint_id, resource_uuid FROM (SELECT DISTINCT * FROM due) AS lane
JOIN webhook_deliveries pending USING (endpoint_id, resource_uuid)
WHERE status = 'pending' ORDER BY pending.id FOR UPDATE OF pending
"""
LOCK_LANES_OF_DISABLED = _LOCK_LANES_OF_ENDPOINTS.format(which="id = ANY(%(endpoint_ids)s) AND disabled_at IS NOT NULL")
LOCK_LANES_OF_BEARER = _LOCK_LANES_OF_ENDPOINTS.format(which="bearer_id = %(bearer_id)s")

DEAD_LETTER_LANES = """
UPDATE webhook_deliveries SET status = 'dead_lettered', due_at = NULL, last_error = %(error)s
WHERE status = 'pending' AND (endpoint_id, resource_uuid) IN (
    SELECT * FROM unnest(%(endpoint_ids)s::bigint[], %(resource_uuids)s::uuid[])
)
"""

# One delivery of each endpoint becomes due: the worker that claims it dead-letters the rest.
HASTEN_OF_BEARER = """
UPDATE webhook_deliveries SET due_at = now() FROM webhook_endpoints
CROSS JOIN LATERAL (
    SELECT id FROM webhook_deliveries
    WHERE webhook_deliveries.endpoint_id = webhook_endpoints.id AND due_at IS NOT NULL ORDER BY due_at LIMIT 1
) AS first
WHERE webhook_endpoints.bearer_id = %(bearer_id)s AND webhook_deliveries.id = first.id
"""

DISABLE_ENDPOINTS_OF_BEARER = """
UPDATE webhook_endpoints SET disabled_at = now() WHERE bearer_id = %(bearer_id)s AND disabled_at IS NULL
"""

ENABLE_ENDPOINT = """
UPDATE webhook_endpoints SET disabled_at = NULL, failing_since = NULL
WHERE bearer_id = %(bearer_id)s AND url = %(url)s AND disabled_at IS NOT NULL
"""

_OF_EVENT_OR_ENDPOINT = {"event_id": "events.event_id", "url": "webhook_endpoints.url"}
_SELECTED = ", ".join(_OF_EVENT_OR_ENDPOINT.get(f.name, f"delivery.{f.name}") for f in fields(Delivery))
_JOINED = """
JOIN events ON events.id = delivery.event_id
JOIN webhook_endpoints ON webhook_endpoints.id = delivery.endpoint_id
"""

GET = f"""
SELECT {_SELECTED} FROM webhook_deliveries delivery {_JOINED}
WHERE delivery.uuid = %(uuid)s AND (%(owner_id)s::bigint IS NULL OR delivery.bearer_id = %(owner_id)s)
"""

ATTEMPTS = """
SELECT number, attempted_at, duration_ms, response_status, response_body, error
FROM webhook_attempts WHERE delivery_id = %(id)s ORDER BY number
"""

# The first delivery made at or after a time, by halving: ids and times of creation rise together, because one relay at
# a time makes all deliveries.
FIRST_AT = """
WITH RECURSIVE search (low, high) AS (
    SELECT 1::bigint, coalesce(max(id), 0) + 1 FROM webhook_deliveries
    UNION ALL
    SELECT CASE WHEN reached THEN low ELSE middle + 1 END, CASE WHEN reached THEN middle ELSE high END
    FROM search
    CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) AS halved
    CROSS JOIN LATERAL (SELECT coalesce(
        (SELECT created_at >= %(time)s FROM webhook_deliveries WHERE id >= middle ORDER BY id LIMIT 1), true
    ) AS reached) AS probed
    WHERE low < high
)
SELECT low FROM search WHERE low = high
"""

OWNED = "AND bearer_id = %(owner_id)s"
OF_RESOURCE = "AND event_id IN (SELECT id FROM events WHERE resource_uuid = %(resource_uuid)s)"
# Written out, because the plan of a prepared statement cannot use a partial index for a status that it does not know.
OF_STATUS = {status.value: f"AND status = '{status}'" for status in DeliveryStatus}

# Newest first. Looks at no more than `scan` deliveries for those of the event type; what an index finds is filtered
# before that. A page is short where they are few; the next begins after LIST_END.
LIST = f"""
WITH scanned AS MATERIALIZED (
    SELECT * FROM webhook_deliveries WHERE id >= %(from_id)s AND id < %(before_id)s {{filters}}
    ORDER BY id DESC LIMIT {{scan}}
)
SELECT {_SELECTED} FROM (
    SELECT * FROM scanned WHERE %(event_type)s = '' OR event_type = %(event_type)s ORDER BY id DESC LIMIT %(limit)s
) AS delivery {_JOINED} ORDER BY delivery.id DESC
"""

LIST_END = """
SELECT id FROM webhook_deliveries WHERE id >= %(from_id)s AND id < %(before_id)s {filters}
ORDER BY id DESC OFFSET {scan} - 1 LIMIT 1
"""

# What gives a delivery its turn back keeps the relay from adding to the lane meanwhile: the relay would take it for a
# predecessor, pending in its own snapshot, although it may end before the relay commits and then promote nobody.
NOT_WHILE_RELAYING = f"SELECT pg_advisory_xact_lock({relay.LOCK})"

# The one to be retried, and all of its lane.
LOCK_LANE = """
SELECT id FROM webhook_deliveries
WHERE endpoint_id = %(endpoint_id)s AND resource_uuid = %(resource_uuid)s AND (status = 'pending' OR id = %(id)s)
ORDER BY id FOR UPDATE
"""

# Answers no row where it is not dead-lettered any more.
RETRY = """
UPDATE webhook_deliveries SET status = 'pending', attempts_in_run = 0, due_at = CASE WHEN NOT EXISTS (
    SELECT FROM webhook_deliveries earlier
    WHERE earlier.endpoint_id = webhook_deliveries.endpoint_id
      AND earlier.resource_uuid = webhook_deliveries.resource_uuid
      AND earlier.status = 'pending' AND earlier.id < webhook_deliveries.id
) THEN now() END
WHERE id = %(id)s AND status = 'dead_lettered'
"""

# The next ones to recover, and the pending ones of their lanes.
LOCK_LANES_TO_RECOVER = """
WITH dead AS MATERIALIZED (
    SELECT id, endpoint_id, resource_uuid FROM webhook_deliveries
    WHERE bearer_id = %(bearer_id)s AND status = 'dead_lettered' AND id >= %(from_id)s AND id < %(before_id)s
    ORDER BY id LIMIT %(limit)s
),
pending AS MATERIALIZED (
    SELECT waiting.id FROM (SELECT DISTINCT endpoint_id, resource_uuid FROM dead) AS lane
    JOIN webhook_deliveries waiting USING (endpoint_id, resource_uuid) WHERE status = 'pending'
)
SELECT id FROM webhook_deliveries
WHERE id IN (SELECT id FROM dead UNION ALL SELECT id FROM pending) ORDER BY id FOR UPDATE
"""

# Those of the locked ones that are dead-lettered; answers their ids.
RECOVER = """
WITH dead AS MATERIALIZED (
    SELECT id, endpoint_id, resource_uuid,
        row_number() OVER (PARTITION BY endpoint_id, resource_uuid ORDER BY id) AS place
    FROM webhook_deliveries WHERE id = ANY(%(ids)s) AND status = 'dead_lettered'
),
recovered AS (
    UPDATE webhook_deliveries SET status = 'pending', attempts_in_run = 0, due_at = CASE
        WHEN place = 1 AND NOT EXISTS (
            SELECT FROM webhook_deliveries earlier WHERE earlier.endpoint_id = dead.endpoint_id
            AND earlier.resource_uuid = dead.resource_uuid AND earlier.status = 'pending' AND earlier.id < dead.id
        ) THEN now() END
    FROM dead WHERE webhook_deliveries.id = dead.id
    RETURNING webhook_deliveries.id, webhook_deliveries.endpoint_id
),
enabled AS (
    UPDATE webhook_endpoints SET disabled_at = NULL, failing_since = NULL
    WHERE id IN (SELECT endpoint_id FROM recovered) AND disabled_at IS NOT NULL
)
SELECT id FROM recovered
"""

ENABLE_ENDPOINT_BY_ID = """
UPDATE webhook_endpoints SET disabled_at = NULL, failing_since = NULL
WHERE id = %(endpoint_id)s AND disabled_at IS NOT NULL
"""

# A dead-lettered delivery is never dropped: it can be retried, and keeps its event.
RELEASE = """
WITH free AS MATERIALIZED (
    SELECT event_id FROM unnest(%(event_ids)s::bigint[]) AS given (event_id)
    WHERE NOT EXISTS (
        SELECT FROM webhook_deliveries kept WHERE kept.event_id = given.event_id AND status <> 'delivered'
    )
),
released AS (DELETE FROM webhook_deliveries WHERE event_id IN (SELECT event_id FROM free))
SELECT event_id FROM free
"""
