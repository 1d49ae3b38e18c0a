"""Names of the files of a take, as the backend announces them and the client keeps them."""

from __future__ import annotations

# The request that made a take: the first file that a take delivers, by which its folder is recognised.
REQUEST_FILE = "request.json"

# What a finished take brings along besides its frames.
TAKE_FILES = ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", REQUEST_FILE)

# The newest small image of a take that is still being denoised.
ESTIMATE_FILE = "estimate.png"


def frame_file_name(index: int) -> str:
    """File name of a take's frame, counted from 0."""
    return f"frame_{index:05d}.png"
