"""The example service: a list of things that have a price."""
