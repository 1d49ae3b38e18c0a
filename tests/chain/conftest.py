"""A few frames of the sample clip as a scene, built once by the real reconstruction."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import DepthFiles
from ex4d.media import VideoWriter, probe, read_frames
from ex4d.pipeline.scene_building import build_scene
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
FRAMES = 6


@pytest.fixture(scope="session")
def sample_clip(tmp_path_factory) -> Path:
    """A folder with footage.mp4 (6 frames), depth.npz and camera.npz, cut from the sample."""
    folder = tmp_path_factory.mktemp("clip")
    info = probe(SAMPLE / "footage.mp4")
    with VideoWriter(folder / "footage.mp4", info.width, info.height, info.fps, crf=0) as movie:
        for frame in read_frames(SAMPLE / "footage.mp4", count=FRAMES):
            movie.write(frame)
    depth = [z for z, _ in zip(DepthFiles(SAMPLE / "depth.npz").estimate(info), range(FRAMES), strict=False)]
    np.savez(folder / "depth.npz", depth=np.stack(depth))
    shutil.copyfile(SAMPLE / "camera.npz", folder / "camera.npz")
    return folder


@pytest.fixture(scope="session")
def sample_scene(sample_clip, tmp_path_factory) -> Scene:
    footage = probe(sample_clip / "footage.mp4")
    return build_scene(
        footage,
        DepthFiles(sample_clip / "depth.npz").estimate(footage),
        CameraPath.load(sample_clip / "camera.npz").intrinsics[0],
        tmp_path_factory.mktemp("scenes") / "sample",
        name="sample",
    )
