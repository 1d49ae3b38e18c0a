"""The artist's project folders: where scenes and takes lie, and how they move and are deleted."""
