"""Draws the contact sheet of a take: source, render, mask and result, a row of frames each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ex4d.media import contact_sheet, read_frames, write_png
from ex4d_core.scene import Scene

COLUMNS = 7
_CELL_WIDTH = 220


def draw_contact_sheet(path: Path, scene: Scene, take_folder: Path, first_frame: int = 0) -> None:
    """Write a PNG with `COLUMNS` frames of a take, evenly spread from its first to its last.

    Args:
        path: of the PNG.
        scene: that the take shows.
        take_folder: with ``color.mp4``, ``mask.mp4`` and ``take.mp4``.
        first_frame: footage frame of the take's frame 0.
    """
    color = dict(_chosen(take_folder / "color.mp4"))
    rows = [
        ("source", [scene.color()[first_frame + index] for index in color]),
        ("render", list(color.values())),
        ("mask", [frame for _, frame in _chosen(take_folder / "mask.mp4")]),
        ("result", [frame for _, frame in _chosen(take_folder / "take.mp4")]),
    ]
    write_png(path, contact_sheet(rows, len(color), _CELL_WIDTH))


def _chosen(movie: Path) -> Iterator[tuple[int, np.ndarray]]:
    """(index, frame) of the frames on the sheet; one frame in memory at a time."""
    from ex4d.media import probe

    frames = probe(movie).frames
    wanted = set(np.linspace(0, frames - 1, min(COLUMNS, frames)).round().astype(int).tolist())
    for index, frame in enumerate(read_frames(movie)):
        if index in wanted:
            yield index, frame
