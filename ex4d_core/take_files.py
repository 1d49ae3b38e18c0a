"""Names of the files of a take, as the backend announces them and the client keeps them."""

from __future__ import annotations

# What a finished take brings along besides its frames.
TAKE_FILES = ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", "request.json")

# The newest small image of a take that is still being denoised.
ESTIMATE_FILE = "estimate.png"


def frame_file_name(index: int) -> str:
    """File name of a take's frame, counted from 0."""
    return f"frame_{index:05d}.png"
