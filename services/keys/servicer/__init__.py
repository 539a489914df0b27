"""Messages in, one command, messages out."""
