"""What accounts, passwords and sessions are, and what is decided about them."""
