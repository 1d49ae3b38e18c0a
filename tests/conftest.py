"""Fixtures that every folder of tests uses: golden data, and small real scenes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.scene import SceneManifest, SceneWriter

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
# The whole golden data where it is at hand; a clone has the cuts under tests/data/golden.
GOLDEN = ROOT.parent / "shared" / "golden"


def golden(name: str) -> Mapping[str, np.ndarray]:
    """One file of golden data, whole or cut."""
    path = GOLDEN / name
    with np.load(path if path.exists() else DATA / "golden" / name, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_geometry() -> Mapping[str, np.ndarray]:
    return golden("ex4d_geometry.npz")


@dataclass(frozen=True)
class SmallScene:
    """A scene package on disk and what was written into it."""

    folder: Path
    color: np.ndarray
    depth: np.ndarray


@pytest.fixture(scope="session")
def write_small_scene() -> Callable[..., SmallScene]:
    """Writes a scene of a near square before a far wall: 6 frames, 48x32, without the parts only Blender needs."""

    def write(folder: Path, seed: int = 0, frames: int = 6) -> SmallScene:
        height, width = 32, 48
        color = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        depth = np.full((frames, height, width), 4.0, np.float32)
        depth[:, 10:22, 16:32] = 2.0
        with SceneWriter(folder) as writer:
            writer.array("color", color.shape, np.uint8).write(color)
            writer.array("depth", depth.shape, np.float32).write(depth)
            still = np.repeat(np.eye(4)[None], frames, axis=0)
            CameraPath(still, intrinsics_matrix(40, 40, 24, 16), width, height).save(writer.path("source_camera"))
            writer.finish(SceneManifest("small", frames, width, height, Fraction(24), "centered", (2.0, 4.0), 2.15))
        return SmallScene(folder, color, depth)

    return write


@pytest.fixture
def small_scene(write_small_scene, tmp_path) -> SmallScene:
    return write_small_scene(tmp_path / "scenes" / "small")


@pytest.fixture
def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
