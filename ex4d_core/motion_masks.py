"""Rules of an artist's mask of what moves: whether it fits its footage, how it is resized, when it says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ex4d_core.errors import RequestError

# Of 255; compressed videos and soft edges are never quite black or white.
WHITE = 128

# Frames, width and height.
Extent = tuple[int, int, int]


def resize_notes(name: str, mask: Extent, footage_name: str, footage: Extent) -> Iterator[str]:
    """A sentence for the artist where a mask has another size than its footage.

    Raises:
        RequestError: it has another number of frames, or another shape.
    """
    if mask[0] != footage[0]:
        raise RequestError(
            f"{name}: the motion mask has {mask[0]} frames, but the footage {footage_name} has {footage[0]}. Export "
            "one image of the mask for each frame."
        )
    (width, height), (wide, high) = mask[1:], footage[1:]
    # Sides that were halved, say, are rounded: shapes may differ by less than a pixel.
    if abs(width * high - height * wide) > max(*mask[1:], *footage[1:]):
        raise RequestError(
            f"{name}: the motion mask is {width}x{height}, another shape than the footage {footage_name}, which is "
            f"{wide}x{high}. Export the mask in the footage's size."
        )
    if mask[1:] != footage[1:]:
        yield f"the motion mask is resized from {width}x{height} to {wide}x{high}"


def empty_notes(least: float, most: float) -> Iterator[str]:
    """Sentences for the artist about a mask that says nothing.

    Args:
        least, most: white shares of its frames.
    """
    if least == 1.0:
        yield "the motion mask is white in all frames: everything moves, so the clip's memory has nothing to remember"
    if most == 0.0:
        yield "the motion mask is black in all frames, so it marks nothing: what moves must be white"


def nearest_resized(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Values (h, w) at another size, each from the nearest pixel."""
    if values.shape == (height, width):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip((height, width), values.shape, strict=True)
    )
    return np.ascontiguousarray(values[rows[:, None], columns])
