"""Contact sheets: many frames of a shot in one image, a row for each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ex4d.media.pixels import as_rgb, resized

_GAP = 4  # pixels between cells: enough to tell them apart, too little to look like content
_BACKGROUND = 24  # dark gray, so that black holes in a render still have an edge


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: int = 8, cell_width: int = 192
) -> np.ndarray:
    """Arrange frames in a grid, one row for each label, from first to last frame in even steps.

    Labels are not drawn (there is no font); they name a row in errors, and the caller may write them beside the image.

    Args:
        rows: (label, frames) with frames as (H, W, 3) uint8, (H, W) uint8 or (H, W) bool.
        columns: frames shown of each row; with fewer frames, its last cells stay empty.
        cell_width: pixels; the height follows each row's aspect ratio.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: no rows, a row without frames, or not one column.
    """
    if not rows or columns < 1 or cell_width < 1:
        raise ValueError(
            f"invalid contact sheet of {len(rows)} rows, {columns} columns, width {cell_width}: expected at least 1"
        )
    strips = [_strip(label, frames, columns, cell_width) for label, frames in rows]
    gap = np.full((_GAP, strips[0].shape[1], 3), _BACKGROUND, np.uint8)
    return np.concatenate([gap] + [part for strip in strips for part in (strip, gap)])


def _strip(label: str, frames: Sequence[np.ndarray], columns: int, cell_width: int) -> np.ndarray:
    if not len(frames):
        raise ValueError(f"contact sheet row {label!r} has no frames")
    shown = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(int))
    height, width = frames[0].shape[:2]
    cell_height = max(1, round(cell_width * height / width))
    strip = np.full((cell_height, _GAP + columns * (cell_width + _GAP), 3), _BACKGROUND, np.uint8)
    for column, index in enumerate(shown):
        left = _GAP + column * (cell_width + _GAP)
        strip[:, left : left + cell_width] = resized(as_rgb(frames[index]), cell_width, cell_height)
    return strip
