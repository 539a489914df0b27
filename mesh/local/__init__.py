"""The mesh on one machine: its folder, database, certificates, edge and processes."""
