"""Usage records in PostgreSQL, and the ledger of what they cost."""
