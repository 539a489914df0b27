"""API keys: who holds one, what it may do, and whether it may do it now."""
