"""Conferences: who is called into them, in which order, and what is wanted of whoever is in one."""
