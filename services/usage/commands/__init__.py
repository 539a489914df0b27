"""What each RPC of usage does."""
