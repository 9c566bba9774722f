"""Calls: conferences of phones, browsers' calls to phones, contacts' calls to us, and what is recorded of them."""
