"""How a shot is cut up and scaled for the generator; the add-on tells the artist, the engine `wan` does it."""

from __future__ import annotations

import math


def window_count(frames: int, window: int, overlap: int) -> int:
    """How many windows a shot of so many frames takes.

    Args:
        window: frames made at once.
        overlap: frames of the window before that each further window starts from.
    """
    return 1 + max(0, -(-(frames - window) // (window - overlap)))


def working_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height at which pictures of so many pixels are generated, their aspect kept.

    Args:
        max_pixels: 0 for any number.
    """
    if not max_pixels or width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))
