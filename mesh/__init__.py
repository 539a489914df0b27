"""The runtime that every service of the mesh runs on; it knows none of them."""
