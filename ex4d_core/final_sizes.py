"""Sizes of a final take: the number of windows it is generated in, and the image size it is generated at."""

from __future__ import annotations

import math


def window_count(frames: int, window: int, overlap: int) -> int:
    """Number of windows that a shot of ``frames`` frames is generated in.

    Args:
        window: frames generated at once.
        overlap: frames of the previous window that each further window starts from.
    """
    return 1 + max(0, -(-(frames - window) // (window - overlap)))


def working_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height at which images are generated: at most ``max_pixels`` pixels, with the same aspect ratio.

    Args:
        max_pixels: 0 for no limit.
    """
    if not max_pixels or width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))
