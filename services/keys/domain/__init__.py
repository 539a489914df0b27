"""What keys, decisions and stored credentials are, and what is decided about them."""
