"""Options and fixtures of all tests: slow tests, golden data, and small real scenes."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.scene import SceneWriter
from ex4d_core.scene_manifest import SceneManifest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
# Last, so that scripts/test.py does not hide the standard library's `test`.
sys.path.append(str(ROOT / "scripts"))
# An empty configuration file for these tests and the processes they start, whatever this machine's user has.
os.environ["EX4D_CONFIG"] = os.devnull
# Tokens of the services that tests start, apart from those of this machine's user.
_tokens = tempfile.TemporaryDirectory(prefix="ex4d-tokens-")
os.environ["EX4D_TOKENS"] = _tokens.name
# No weights that other programs keep on this machine.
_no_weights = tempfile.TemporaryDirectory(prefix="ex4d-no-weights-")
os.environ["COMFYUI_PATH"] = os.environ["HF_HUB_CACHE"] = _no_weights.name


# Folders of tests that run in any environment; the others need PyTorch, or Blender's Python.
ANYWHERE = ("core", "data", "gui", "scripts")


class SkippedFolder(pytest.Collector):
    """A folder of tests that this environment cannot run."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip the folder without importing anything in it: only a `pytest.Directory` has its conftest.py loaded."""
        pytest.skip(f"tests/{self.path.name} needs {needed_by(self.path)}, which is not installed here")


def needed_by(folder: Path) -> str:
    """The package that a folder of tests needs."""
    return "bpy" if folder.name == "blender" else "torch"


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Skip folders of tests whose packages are not installed, so that plain pytest is green everywhere."""
    if path.parent == ROOT / "tests" and path.name not in ANYWHERE and find_spec(needed_by(path)) is None:
        return SkippedFolder.from_parent(parent, name=path.name, path=path)
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options: tests that take minutes, and larger golden data than this repository has."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--golden",
        metavar="FOLDER",
        default=os.environ.get("EX4D_GOLDEN"),
        help="compare with the larger golden data in FOLDER (default: EX4D_GOLDEN, else tests/data/golden)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow tests unless they were requested."""
    if not config.getoption("slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run pytest with --slow"))


@pytest.fixture
def roomy_disk(monkeypatch) -> None:
    """Every disk has 900 GB free, however full those of this machine are."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**11, 9 * 10**11))


@pytest.fixture(scope="session")
def golden_folder(pytestconfig: pytest.Config) -> Path:
    """The larger golden data of --golden, for tests whose data is too large for this repository."""
    folder = pytestconfig.getoption("golden")
    if not folder:
        pytest.skip("needs the larger golden data: run pytest with --golden FOLDER")
    return Path(folder)


@pytest.fixture(scope="session")
def read_golden(pytestconfig: pytest.Config) -> Callable[[str], Mapping[str, np.ndarray]]:
    """Reads a file of golden data by its name: the committed one, or the larger one of --golden."""

    def read(name: str) -> Mapping[str, np.ndarray]:
        larger = Path(pytestconfig.getoption("golden") or DATA / "golden") / name
        with np.load(larger if larger.exists() else DATA / "golden" / name, allow_pickle=False) as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def golden_geometry(read_golden: Callable[[str], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """Mesh, cameras and renders of the original EX-4D."""
    return read_golden("ex4d_geometry.npz")


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
