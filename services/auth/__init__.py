"""People: accounts, passwords, sessions, and the access tokens all services trust."""
