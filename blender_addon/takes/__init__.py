"""Takes: send a shot to the backend, follow its job, and go on after any interruption."""
