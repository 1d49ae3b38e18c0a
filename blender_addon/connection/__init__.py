"""The one connection to the backend: where it is, how it stands, and the timer that keeps it alive."""
