"""Writes a scene package of half floats, from an EXR sequence and depth: a ramp that rises by the frame.

Run by the backend's Python:

    python write_deep_scene.py FOLDER FRAMES WIDTH HEIGHT
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import OpenEXR

from ex4d.media.colour_management import LINEAR_SRGB
from ex4d.media.deep_source import chromaticities_of
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.sources import DepthSettings


def write_deep_scene(folder: Path, frames: int, width: int, height: int) -> None:
    """A wall with a near square before it; colours are from 0.1 to 0.9, another one in each pixel and frame."""
    depth = np.full((frames, height, width), 4.0, np.float32)
    depth[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 1.5
    ramp = np.linspace(0.1, 0.7, height * width * 3, dtype=np.float32).reshape(height, width, 3)
    with TemporaryDirectory() as name:
        sources = Path(name)
        (sources / "exr").mkdir()
        for index in range(frames):
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "chromaticities": chromaticities_of(LINEAR_SRGB)}
            with OpenEXR.File(header, {"RGB": (ramp + 0.05 * index).astype(np.float16)}) as file:
                file.write(str(sources / "exr" / f"ramp.{index:04}.exr"))
        np.save(sources / "depth.npy", depth)
        settings = ReconstructionSettings("ramp", DepthSettings("array"), bit_depth="16")
        reconstruct(SourcePaths(sources / "exr", sources / "depth.npy"), settings, folder)


if __name__ == "__main__":
    write_deep_scene(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
