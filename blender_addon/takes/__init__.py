"""Takes: send a shot to the backend, follow its job, and show its frames and its movie in the sequencer."""
