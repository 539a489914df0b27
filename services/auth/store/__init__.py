"""Accounts, sessions and login attempts in PostgreSQL, whose clock is the only one asked."""
