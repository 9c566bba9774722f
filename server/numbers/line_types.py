"""What kind of line a number is, as the provider's lookup says: asked once, kept for a while, never waited for."""

# Of the row `l` of line_types: nothing is to be asked, or it is asked already.
IS_KNOWN = "l.due_at IS NOT NULL OR l.looked_up_at > now() - interval '90 days'"

# Has %(receiver_number)s looked up; touches no row where that is under way. The body of a CTE.
ENQUEUE = """
    INSERT INTO line_types (phone_number, due_at) VALUES (%(receiver_number)s, now())
    ON CONFLICT (phone_number) DO UPDATE SET due_at = now(), attempts = 0
    WHERE line_types.due_at IS NULL AND line_types.looked_up_at < now() - interval '90 days'
"""
