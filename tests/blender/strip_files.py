"""Files and strips that tests of the sequencer start with."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.sequencer.strips import TakeStrip, strips_of
from ex4d_core.take_files import frame_file_name

TAKE = TakeStrip("k1", "flower arc", 11, 9, {"engine": "preview", "label": "flower arc"})


@pytest.fixture
def images(tmp_path: Path) -> dict[int, Path]:
    """Nine small images, as a take's folder has them."""
    files = {index: tmp_path / frame_file_name(index) for index in range(9)}
    for index, path in files.items():
        image = bpy.data.images.new(path.name, 8, 6)
        gray = np.tile(np.float32([index / 8, index / 8, index / 8, 1]), 8 * 6)
        image.pixels.foreach_set(gray)
        image.filepath_raw, image.file_format = str(path), "PNG"
        image.save()
        bpy.data.images.remove(image)
    return files


def add_title(scene: bpy.types.Scene, channel: int, start: int, end: int) -> bpy.types.Strip:
    """Another strip; the argument for its length changed its name in Blender 5.0."""
    length = {"length": end - start} if bpy.app.version >= (5, 0, 0) else {"frame_end": end}
    return strips_of(scene).new_effect(name="title", type="COLOR", channel=channel, frame_start=start, **length)
