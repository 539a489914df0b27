"""What each RPC of auth does."""
