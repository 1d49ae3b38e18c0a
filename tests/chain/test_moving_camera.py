"""A static scene filmed by a moving camera: every frame's mesh lies in one world, and presets start where it stands."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthClip
from ex4d.media import VideoWriter, probe, read_frames
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.scene_building import build_scene
from ex4d_core.cameras import CameraPath, intrinsics_matrix, look_at
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene

FRAMES, WIDTH, HEIGHT = 8, 96, 64
LENS = intrinsics_matrix(90, 90, WIDTH / 2, HEIGHT / 2)
BALL, RADIUS, WALL = np.array([0.2, 0.1, 4.0]), 0.8, 6.0


def filmed(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and exact depth of a textured ball before a textured wall, by one ray for each pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(x - LENS[0, 2]) / LENS[0, 0], (y - LENS[1, 2]) / LENS[1, 1], np.ones_like(x)], axis=2)
    turned, eye = rays @ pose[:3, :3], -pose[:3, :3].T @ pose[:3, 3]
    wall = (WALL - eye[2]) / turned[..., 2]
    a, b, c = (turned**2).sum(axis=2), turned @ (eye - BALL), ((eye - BALL) ** 2).sum() - RADIUS**2
    root = b * b - a * c
    ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth = np.minimum(wall, ball)
    point = eye + depth[..., None] * turned
    color = 127 + 110 * np.sin(3 * point + [0, 2, 4])
    return color.astype(np.uint8), depth.astype(np.float32)


@pytest.fixture(scope="module")
def camera() -> CameraPath:
    """Starts at the origin, looks ahead, and travels past the ball, which it keeps in view."""
    time = np.linspace(0, 1, FRAMES)[:, None]
    eyes = time * [1.2, -0.3, 0.5]
    poses = look_at(eyes, np.array([0, 0, 5.0]))
    return CameraPath(poses, LENS, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def clip(camera, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("moving")
    frames = [filmed(pose) for pose in camera.world_to_camera]
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, Fraction(24), crf=0) as movie:
        for color, _ in frames:
            movie.write(color)
    np.savez(folder / "depth.npz", depth=np.stack([depth for _, depth in frames]))
    camera.save(folder / "camera.npz")
    return folder


@pytest.fixture(scope="module")
def scene(clip, camera) -> Scene:
    depth = np.load(clip / "depth.npz")["depth"]
    footage = probe(clip / "clip.mp4")
    known = DepthClip(footage, None, "metric", "rays", "", lambda: iter(depth))
    return build_scene(footage, known, LENS, clip / "scene", name="moving", source_camera=camera, mesh=True)


def world_points(scene: Scene) -> np.ndarray:
    """(T, rows, columns, 3) of the vertices of real pixels, without the ring around the picture."""
    data = scene.path("positions").read_bytes()
    points = np.frombuffer(data, "<f4", offset=32).reshape(FRAMES, HEIGHT + 2, WIDTH + 2, 3)
    return points[:, 1:-1, 1:-1]


def test_the_scene_does_not_drift(scene):
    """Every vertex of every frame lies on the ball or the wall, where they stood in frame 0."""
    points = world_points(scene).astype(np.float64)
    from_ball = np.abs(np.linalg.norm(points - BALL, axis=3) - RADIUS)
    drift = np.minimum(from_ball, np.abs(points[..., 2] - WALL))
    size = np.linalg.norm(points.reshape(-1, 3).max(axis=0) - points.reshape(-1, 3).min(axis=0))
    print(f"largest drift {drift.max() / size:.2e} of the scene's size")
    assert drift.max() < 1e-4 * size


def test_without_the_camera_it_would_drift(scene, clip):
    depth = np.load(clip / "depth.npz")["depth"]
    footage = probe(clip / "clip.mp4")
    known = DepthClip(footage, None, "metric", "rays", "", lambda: iter(depth))
    still = build_scene(footage, known, LENS, clip / "still", name="still", mesh=True)
    assert np.abs(world_points(still)[-1, 0, 0] - world_points(scene)[-1, 0, 0]).max() > 0.2


def test_the_moving_camera_gives_the_footage_back(scene):
    for frame in render_shot(scene, scene.source_camera(), RenderSettings(), device="cpu"):
        assert frame.mask.mean() > 0.999
        assert np.abs(scene.color()[frame.index].astype(int) - frame.color).mean() < 2


def test_a_later_frame_seen_from_the_first_camera(scene, camera):
    """The mesh of the last frame, seen from where frame 0 was filmed, shows what frame 0 shows."""
    first = camera.frames(0, 1)
    (frame,) = render_shot(scene, first, RenderSettings(), first_frame=FRAMES - 1, device="cpu")
    error = np.abs(scene.color()[0].astype(int) - frame.color)[frame.mask]
    assert frame.mask.mean() > 0.4 and np.median(error) <= 4


def test_the_command_reads_the_camera_and_presets_start_where_it_stands(clip, tmp_path, capsys):
    arguments = [clip / "clip.mp4", "--depth", clip / "depth.npz", "--source-camera", clip / "camera.npz"]
    assert main(["reconstruct", *map(str, arguments), "-o", str(tmp_path / "scene")]) == 0
    told = capsys.readouterr().out
    assert "from the camera file camera.npz" in told and "assumed" not in told
    render = ["render", str(tmp_path / "scene"), "--preset", "truck", "--amount", "0.01", "--first-frame", "5"]
    assert main([*render, "--frames", "1", "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        color = arrays["color"][0]
    expected = list(read_frames(clip / "clip.mp4"))[5]
    assert np.abs(expected.astype(int) - color).mean() < 4


def test_a_camera_of_another_length_is_refused(clip, camera):
    footage = probe(clip / "clip.mp4")
    known = DepthClip(footage, None, "metric", "rays", "", lambda: iter(()))
    with pytest.raises(ValueError, match="a source camera of 3 frames does not fit footage of 8"):
        build_scene(footage, known, LENS, clip / "wrong", name="wrong", source_camera=camera.frames(0, 3))


@pytest.fixture(scope="module")
def relative(clip) -> Path:
    """Disparity as an estimator gives it: in a unit of its own, and with an offset that is wrong by 20 %."""
    disparity = 1 / np.load(clip / "depth.npz")["depth"]
    nearest = disparity.max()
    np.savez(clip / "relative.npz", depth=7.0 * (1.2 * disparity / nearest - 0.2))
    return clip / "relative.npz"


def reconstructed(clip: Path, folder: Path, *options: str, camera: str = "camera.npz") -> Scene:
    words = [str(clip / "clip.mp4"), "--depth", str(clip / "relative.npz"), "--inverse-depth", "-o", str(folder)]
    assert main(["reconstruct", *words, "--source-camera", str(clip / camera), *options]) == 0
    return Scene.open(folder)


def error_of(scene: Scene, clip: Path) -> float:
    """Median of |log| of depth over the true one."""
    return float(np.median(np.abs(np.log(scene.depth() / np.load(clip / "depth.npz")["depth"]))))


def test_relative_depth_is_fitted_to_the_camera(clip, relative, tmp_path, capsys):
    fitted = reconstructed(clip, tmp_path / "fitted")
    assert error_of(fitted, clip) < 0.02
    assert fitted.manifest.depth_mapping.offset == pytest.approx(0.2, abs=0.03)
    assert "fitted to the source camera" in capsys.readouterr().err
    assert "fitted" in fitted.manifest.provenance["depth scale"]
    left = reconstructed(clip, tmp_path / "left", "--no-camera-fit")
    assert error_of(left, clip) > 0.3 and left.manifest.depth_mapping is None
    assert main(["remap", str(tmp_path / "left"), "-o", str(tmp_path / "later"), "--camera-fit"]) == 0
    later = Scene.open(tmp_path / "later")
    assert error_of(later, clip) < 0.02, "an older scene can be fitted, too"


def test_an_offset_that_is_given_stays_and_the_unit_is_fitted(clip, relative, tmp_path):
    scene = reconstructed(clip, tmp_path / "scene", "--depth-offset", "0.2")
    assert scene.manifest.depth_mapping.offset == 0.2 and error_of(scene, clip) < 0.02


def test_poses_that_contradict_the_depth_are_refused_with_the_frame(clip, relative, camera, tmp_path, capsys):
    backwards = CameraPath(camera.world_to_camera[::-1].copy(), camera.intrinsics, WIDTH, HEIGHT)
    backwards.save(clip / "backwards.npz")
    words = [str(clip / "clip.mp4"), "--depth", str(relative), "--inverse-depth", "-o", str(tmp_path / "scene")]
    assert main(["reconstruct", *words, "--source-camera", str(clip / "backwards.npz")]) == 1
    told = capsys.readouterr().err
    assert "contradicts the depth" in told and "in frame " in told
    assert not (tmp_path / "scene").exists()


def test_a_single_pose_that_contradicts_the_depth_is_named(clip, relative, camera, tmp_path, capsys):
    poses = camera.world_to_camera.copy()
    poses[4, :3, 3] += [0.5, 0.4, 0]
    CameraPath(poses, camera.intrinsics, WIDTH, HEIGHT).save(clip / "jump.npz")
    scene = reconstructed(clip, tmp_path / "scene", camera="jump.npz")
    assert "contradicts the depth in 4" in capsys.readouterr().err
    assert error_of(scene, clip) < 0.05, "the others are enough"


def test_a_camera_that_stands_still_says_nothing(clip, relative, camera, tmp_path, capsys):
    still = CameraPath(np.repeat(np.eye(4)[None], FRAMES, axis=0), camera.intrinsics, WIDTH, HEIGHT)
    still.save(clip / "still.npz")
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    with VideoWriter(frozen / "clip.mp4", WIDTH, HEIGHT, Fraction(24), crf=0) as movie:
        for _ in range(FRAMES):
            movie.write(filmed(camera.world_to_camera[0])[0])
    disparity = np.load(relative)["depth"][:1].repeat(FRAMES, axis=0)
    np.savez(frozen / "relative.npz", depth=disparity)
    still.save(frozen / "still.npz")
    scene = reconstructed(frozen, tmp_path / "scene", camera="still.npz")
    assert "moves too little" in capsys.readouterr().err
    assert np.allclose(scene.depth(), 1 / disparity), "the depth is left as it is"
