"""The failures of the local stack that a person can do something about."""


class StackError(Exception):
    """Why the local stack cannot go on, in one sentence for the person who started it."""
