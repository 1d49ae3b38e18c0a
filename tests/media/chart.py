"""The chart of `tests/data/cases`: patches of known colours, a frame number, and a colour in each corner."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, MARGIN = 320, 192, 24
# Rows of four patches; the frame number is above, as eight cells between the corners, of which the left one is bit 0.
PATCHES = (
    ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)),
    ((0, 255, 255), (255, 0, 255), (255, 255, 255), (0, 0, 0)),
    ((128, 128, 128), (64, 64, 64), (192, 192, 192), (200, 120, 90)),
    ((30, 90, 160), (16, 16, 16), (235, 235, 235), (90, 140, 60)),
)
NAMES = {"red": (0, 0), "green": (0, 1), "white": (1, 2), "black": (1, 3), "grey": (2, 0), "skin": (2, 3)}
TOP_LEFT, TOP_RIGHT = (255, 0, 0), (0, 255, 0)
_CORNER = 12


def chart(number: int = 0) -> np.ndarray:
    """The chart (192, 320, 3) uint8 of a frame."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row, colours in enumerate(PATCHES):
        top = MARGIN + row * (HEIGHT - 2 * MARGIN) // 4
        for column, colour in enumerate(colours):
            image[top : top + (HEIGHT - 2 * MARGIN) // 4, column * 80 : column * 80 + 80] = colour
    for bit in range(8):
        image[:MARGIN, 32 + bit * 32 : 64 + bit * 32] = 255 * (number >> bit & 1)
    image[:_CORNER, :_CORNER], image[:_CORNER, -_CORNER:] = TOP_LEFT, TOP_RIGHT
    image[-_CORNER:, :_CORNER], image[-_CORNER:, -_CORNER:] = (0, 0, 255), (255, 255, 0)
    return image


def number_of(image: np.ndarray) -> int:
    """The frame number of a chart, read back."""
    return sum(1 << bit for bit in range(8) if image[6:16, 40 + bit * 32 : 56 + bit * 32].mean() > 127)


def patch(image: np.ndarray, name: str) -> np.ndarray:
    """Median colour (3,) of a patch."""
    row, column = NAMES[name]
    top = MARGIN + row * (HEIGHT - 2 * MARGIN) // 4
    return np.median(image[top + 12 : top + 24, column * 80 + 30 : column * 80 + 50].reshape(-1, 3), axis=0)


def largest_difference(image: np.ndarray) -> float:
    """Of all patches, the largest difference of a channel from its right value."""
    differences = []
    for row, colours in enumerate(PATCHES):
        top = MARGIN + row * (HEIGHT - 2 * MARGIN) // 4
        for column, colour in enumerate(colours):
            seen = np.median(image[top + 12 : top + 24, column * 80 + 30 : column * 80 + 50].reshape(-1, 3), axis=0)
            differences.append(np.abs(seen - colour).max())
    return float(max(differences))
