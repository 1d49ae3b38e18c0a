"""The connection to the backend: preferences, state, panel, and a backend started on this computer."""
