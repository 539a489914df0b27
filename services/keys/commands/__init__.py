"""What each RPC that manages keys and credentials does."""
