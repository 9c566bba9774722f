"""The groups of commands that `python -m server` has; each command imports only what it runs."""
