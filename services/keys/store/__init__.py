"""Keys and credentials in PostgreSQL, and what its replicas are told of their changes."""
