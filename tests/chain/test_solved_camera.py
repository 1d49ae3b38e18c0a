"""Relative depth of footage whose camera moves: fitted to a solved camera's points, or to those of COLMAP's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthFiles
from ex4d.media import probe
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import ReconstructionRequest, ReconstructionSettings, request_from_wire
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings, SourceFile

CLIP = Path(__file__).resolve().parents[1] / "data" / "moving_camera"
FRAMES = 10


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """(T, H, W) exact depth."""
    return np.stack(list(DepthFiles(CLIP / "depth.npz").estimate(probe(CLIP / "footage.mp4"))))[:FRAMES]


@pytest.fixture(scope="module")
def camera() -> CameraPath:
    return CameraPath.load(CLIP / "camera.npz").frames(0, FRAMES)


@pytest.fixture(scope="module")
def disparity(truth, tmp_path_factory) -> Path:
    """The exact disparity with another factor and offset in every frame, as per-image estimators give it."""
    random = np.random.default_rng(0)
    factor, offset = random.uniform(0.5, 2, (FRAMES, 1, 1)), random.uniform(0.02, 0.1, (FRAMES, 1, 1))
    path = tmp_path_factory.mktemp("disparity") / "disparity.npy"
    np.save(path, (factor / truth + offset).astype(np.float32))
    return path


def reconstructed(disparity: Path, folder: Path, *options: str) -> Scene:
    sources = [str(CLIP / "footage.mp4"), "--frames", str(FRAMES), "--depth", str(disparity), "--inverse-depth"]
    assert main(["reconstruct", *sources, "-o", str(folder), *options]) == 0
    return Scene.open(folder)


def relative_error(scene: Scene, truth: np.ndarray, camera: CameraPath) -> float:
    """Median error of depth over all frames, in the unit in which the camera moves as it truly did."""
    ways = [one.camera_to_world[-1, :3, 3] - one.camera_to_world[0, :3, 3] for one in (camera, scene.source_camera())]
    unit = np.linalg.norm(ways[0]) / np.linalg.norm(ways[1])
    return float(np.median(np.abs(unit * np.array(scene.depth()) / truth - 1)))


def test_relative_depth_and_a_solved_camera_become_one_scene(disparity, truth, camera, tmp_path, capsys):
    pytest.importorskip("pycolmap", reason="solving cameras needs the extra colmap")
    scene = reconstructed(disparity, tmp_path / "solved", "--camera-motion", "solve", "--focal-px", "270.2222")
    assert scene.manifest.depth_scale == "metric"
    assert relative_error(scene, truth, camera) < 0.05
    assert scene.manifest.provenance["source camera"].startswith("solved from")
    assert "solved from" in " ".join(capsys.readouterr().out.split())
    assert "source camera notes" not in scene.manifest.provenance


def write_colmap(folder: Path, truth: np.ndarray, camera: CameraPath) -> None:
    """A model of the clip's true camera, with points on what its first frame shows, seen by all frames."""
    folder.mkdir()
    lens, (height, width) = camera.intrinsics[0], truth.shape[1:]
    numbers = [lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2]]
    (folder / "cameras.txt").write_text(f"1 PINHOLE {width} {height} {' '.join(map(str, numbers))}\n")
    rows, columns = np.mgrid[10:height:12, 10:width:12]
    rays = np.stack([columns + 0.5, rows + 0.5, np.ones_like(rows)], axis=-1).reshape(-1, 3) @ np.linalg.inv(lens).T
    seen = rays * truth[0, rows.ravel(), columns.ravel()][:, None]
    world = (seen - camera.world_to_camera[0, :3, 3]) @ camera.world_to_camera[0, :3, :3]
    points = [f"{number} {x} {y} {z} 0 0 0 0.5" for number, (x, y, z) in enumerate(world)]
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")
    lines = []
    for frame, pose in enumerate(camera.world_to_camera):
        there = world @ pose[:3, :3].T + pose[:3, 3]
        pixel = (there @ lens.T)[:, :2] / there[:, 2:]
        w = np.sqrt(1 + np.trace(pose[:3, :3])) / 2
        turn = [w, *((pose[[2, 0, 1], [1, 2, 0]] - pose[[1, 2, 0], [2, 0, 1]]) / (4 * w))]
        lines.append(f"{frame + 1} {' '.join(map(str, [*turn, *pose[:3, 3]]))} 1 frame_{frame}.png")
        lines.append(" ".join(f"{x} {y} {number}" for number, (x, y) in enumerate(pixel)))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def test_relative_depth_is_fitted_to_the_points_of_a_colmap_model(disparity, truth, camera, tmp_path, capsys):
    write_colmap(tmp_path / "model", truth, camera)
    options = ["--source-camera", str(tmp_path / "model")]
    scene = reconstructed(disparity, tmp_path / "fitted", *options)
    assert relative_error(scene, truth, camera) < 0.02
    (tmp_path / "model" / "points3D.txt").unlink()
    without = reconstructed(disparity, tmp_path / "without", *options)
    assert relative_error(without, truth, camera) > 0.1, "or the points would do nothing"
    # A pose that is wrong in one frame is said, with the frame.
    write_colmap(tmp_path / "wrong", truth, camera)
    images = (tmp_path / "wrong" / "images.txt").read_text().splitlines()
    images[2 * 6 + 1] = " ".join(
        f"{x} {y} {number}" for number, (x, y) in enumerate(np.random.default_rng(0).uniform(5, 250, (400, 2)))
    )
    (tmp_path / "wrong" / "images.txt").write_text("\n".join(images) + "\n")
    capsys.readouterr()
    scene = reconstructed(disparity, tmp_path / "contradicting", "--source-camera", str(tmp_path / "wrong"))
    assert "contradict each other in frame 6" in " ".join(capsys.readouterr().err.split())
    assert "in frame 6" in scene.manifest.provenance["source camera notes"]


def test_a_camera_is_solved_for_or_given(tmp_path, disparity, capsys):
    options = ["--camera-motion", "solve", "--source-camera", str(CLIP / "camera.npz")]
    footage = ["reconstruct", str(CLIP / "footage.mp4"), "--depth", str(disparity), "-o", str(tmp_path / "scene")]
    assert main([*footage, *options]) == 1
    assert "--camera-motion" in capsys.readouterr().err
    settings = ReconstructionSettings("walk", DepthSettings("estimator", "auto"), camera_motion="solve")
    film, model = (SourceFile("12" * 32, 5, name) for name in ("walk.mp4", "camera.npz"))
    sent = ReconstructionRequest(settings, (film,)).to_wire()
    assert request_from_wire(sent) == ReconstructionRequest(settings, (film,))
    with pytest.raises(RequestError, match="solved for or given"):
        ReconstructionRequest(settings, (film,), camera_files=(model,))
