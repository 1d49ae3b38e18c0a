"""Shortcuts: a pie menu in 3D viewports, and keys that the artist can change in the preferences."""
