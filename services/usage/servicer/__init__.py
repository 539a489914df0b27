"""Messages in, one command, messages out: a file for each service of the contract."""
