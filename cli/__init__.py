"""The `khesht` command line; it alone knows all services and the machine they run on."""
