"""Passes for compositing: the backend renders a shot in half floats, and the compositor gets a node that reads it."""
