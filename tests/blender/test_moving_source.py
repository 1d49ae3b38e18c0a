"""Footage from a camera that moved, solved by COLMAP or written by NeRF tools: mesh and camera stand in one world."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.footage.scene_jobs import import_finished
from blender_addon.scenes.importing import ImportSettings, import_scene
from ex4d_core.scene import Scene
from ex4d_core.trajectories import Trajectory

from .conftest import backend_environment, tick_until
from .test_import_scene import evaluated_positions, render_frame

FRAMES, WIDTH, HEIGHT = 9, 96, 64
WALL_NORMAL, WALL_OFFSET = np.array([1.0, 0.0, -4.0]), 16.0  # as in write_moving_footage.py


@pytest.fixture(scope="session")
def moving_footage(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moving footage")
    script = str(Path(__file__).with_name("write_moving_footage.py"))
    sizes = map(str, (FRAMES, WIDTH, HEIGHT))
    subprocess.run([backend_python, script, str(folder), *sizes], check=True, env=backend_environment())
    return folder


@pytest.fixture(scope="session", params=["transforms.json", "colmap"])
def package(request, backend_python: str, moving_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene that `ex4d reconstruct` makes of it."""
    folder = tmp_path_factory.mktemp("scenes") / "moving"
    command = [backend_python, "-m", "ex4d", "reconstruct", str(moving_footage / "clip.mp4")]
    command += ["--depth", str(moving_footage / "depth.npz"), "--out", str(folder)]
    command += ["--source-camera", str(moving_footage / request.param)]
    subprocess.run(command, check=True, env=backend_environment())
    return folder


@pytest.mark.parametrize("camera", ["transforms.json", "colmap/images.txt"])
def test_the_panel_takes_the_camera_file_too(connected, moving_footage, tmp_path, camera):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    assert bpy.ops.ex4d.pick_footage(filepath=str(moving_footage / "clip.mp4")) == {"FINISHED"}
    settings = bpy.context.scene.ex4d_footage
    settings.depth, settings.camera = str(moving_footage / "depth.npz"), str(moving_footage / camera)
    assert bpy.ops.ex4d.reconstruct() == {"FINISHED"}
    (entry,) = bpy.context.scene.ex4d_reconstructions
    tick_until(lambda: entry.state in ("done", "failed", "stopped"), "the reconstruction")
    assert entry.state == "done", entry.reason
    import_finished()
    source = bpy.context.scene.camera
    bpy.context.scene.frame_set(1)
    first = source.matrix_world.translation.copy()
    bpy.context.scene.frame_set(FRAMES)
    # As below, for the scene that the command made.
    assert tuple(source.matrix_world.translation - first) == pytest.approx((0.7, 0.3, 0.2), abs=1e-5)


def wall_of(imported: bpy.types.Object, frame: int) -> np.ndarray:
    """(N, 3) positions in the scene's world of the picture's upper rows, which show nothing but wall."""
    grid = evaluated_positions(imported, frame).reshape(HEIGHT + 2, WIDTH + 2, 3)
    return grid[1:5, 1:-1].reshape(-1, 3).astype(np.float64)


def test_what_stands_still_stands_still_in_every_frame(package):
    imported = import_scene(package, ImportSettings(frame_start=11))
    for frame in (11, 15, 19):
        off = (wall_of(imported, frame) @ WALL_NORMAL + WALL_OFFSET) / np.linalg.norm(WALL_NORMAL)
        assert np.abs(off).max() < 2e-3, f"frame {frame}"


def test_the_animated_camera_sees_the_footage_of_every_frame(package, tmp_path):
    footage = Scene.open(package).color().astype(float)
    imported = import_scene(package, ImportSettings(frame_start=11))
    camera = imported.ex4d_scene.source_camera
    bpy.context.scene.frame_set(11)
    first = camera.matrix_world.translation.copy()
    bpy.context.scene.frame_set(19)
    # Right, up and forward, in Blender's axes.
    assert tuple(camera.matrix_world.translation - first) == pytest.approx((0.7, 0.3, 0.2), abs=1e-5)
    for index in (0, 4, 8):
        picture = render_frame(11 + index, tmp_path / "render.png")
        # The frustum's walls touch the picture's edge; colours of neighbours run into each other in the movie.
        errors = [np.abs(picture - one)[1:-1, 1:-1] for one in footage]
        assert int(np.argmin([error.mean() for error in errors])) == index
        assert np.percentile(errors[index], 90) < 12


def test_moves_start_at_the_moving_cameras_view_and_stay_true_after_alignment(package):
    imported = import_scene(package, ImportSettings(frame_start=11))
    camera = camera_from_preset(imported, Trajectory("orbit"))
    source = Scene.open(package).source_camera()
    before = sample_camera(camera, imported, 11, 19)
    np.testing.assert_allclose(before.world_to_camera[0], source.world_to_camera[0], atol=1e-5)
    followed = sample_camera(imported.ex4d_scene.source_camera, imported, 11, 19)
    np.testing.assert_allclose(followed.world_to_camera, source.world_to_camera, atol=1e-5)
    bpy.context.scene.cursor.location, bpy.context.scene.cursor.rotation_euler = (0, 2, -1), (0.2, 0.1, 0)
    bpy.ops.ex4d.align_ground(method="CURSOR")
    bpy.ops.ex4d.set_scale(factor=1.7)
    bpy.context.view_layer.update()
    followed = sample_camera(imported.ex4d_scene.source_camera, imported, 11, 19)
    np.testing.assert_allclose(followed.world_to_camera, source.world_to_camera, atol=1e-5)
