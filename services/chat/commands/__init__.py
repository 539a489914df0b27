"""What each RPC of chat does."""
