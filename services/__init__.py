"""The services of the mesh: the same rooms in each, and no import between them."""
