"""Footage to an imported scene: pick a video and its depth, have the backend reconstruct it, import what comes back."""
