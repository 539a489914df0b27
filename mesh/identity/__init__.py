"""Who calls: the client's side of auth and keys, the two contracts all services use."""
