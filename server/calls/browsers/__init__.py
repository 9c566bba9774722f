"""Calls from browsers: the tokens that they call with, and what is dialled for them."""
