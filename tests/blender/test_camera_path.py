"""What viewports and timelines draw: the path of the shot's camera, of the right scene, and where it is drawn."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.keyframes import curves_of
from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.coverage.drawing import colors_of, strip_band, strip_is_in_header
from blender_addon.coverage.live_coverage import ShownCoverage, live_coverage
from blender_addon.coverage.path_drawing import frame_colors, worst_frame
from blender_addon.coverage.path_lines import frustum_points, path_lines
from blender_addon.coverage.shot_path import ShotPath, shot_paths
from blender_addon.scenes.importing import ImportSettings, import_scene
from ex4d_core.cameras import CameraPath
from ex4d_core.trajectories import Trajectory

from .conftest import tick_round


@pytest.fixture
def imported(card_scene) -> bpy.types.Object:
    """The card's scene at frames 11 to 19, shot by a truck; no backend."""
    imported = import_scene(card_scene, ImportSettings(frame_start=11))
    bpy.context.scene.ex4d_shot.camera = camera_from_preset(imported, Trajectory("truck"), name="truck")
    return imported


def read() -> ShotPath:
    """The path, after all that is due has been read."""
    for _ in range(20):
        tick_round()
    return shot_paths.of(bpy.context.scene)


def coverage_of(seen: list[float], frame_start: int = 11) -> ShownCoverage:
    none = np.zeros(len(seen))
    return ShownCoverage(frame_start, np.array(seen), none, none, np.ones(len(seen), dtype=bool))


def still(frames: int) -> CameraPath:
    """A camera at the origin that looks along z, 90 degrees wide."""
    intrinsics = np.array([[50.0, 0, 50], [0, 50, 25], [0, 0, 1]])
    return CameraPath(np.tile(np.eye(4), (frames, 1, 1)), intrinsics, 100, 50)


def test_the_path_is_read_without_a_backend(imported):
    shot_path = read()
    expected = sample_camera(bpy.data.objects["truck"], imported, 11, 19)
    assert (shot_path.frame_start, shot_path.problem) == (11, "")
    np.testing.assert_allclose(shot_path.path.world_to_camera, expected.world_to_camera, atol=2e-6)


def test_the_path_is_another_one_only_after_it_has_changed(imported):
    number = read().number
    bpy.context.scene.frame_set(15)
    bpy.data.objects["truck"].animation_data.action.update_tag()
    bpy.context.view_layer.update()
    assert read().number == number, "batches are kept"
    curve = next(one for one in curves_of(bpy.data.objects["truck"]) if one.data_path == "location")
    curve.keyframe_points[-1].co.y += 1.0
    bpy.data.objects["truck"].animation_data.action.update_tag()
    bpy.context.view_layer.update()
    assert read().number == number + 1


def test_nothing_is_read_where_nothing_is_shown(imported):
    bpy.context.scene.ex4d_path.show = False
    assert read().path is None
    bpy.context.scene.ex4d_path.show = True
    assert read().path is not None


def test_a_rigs_path_is_drawn_after_refresh(imported):
    bpy.data.objects["truck"].constraints.new("LIMIT_DISTANCE").target = imported
    shot_path = read()
    assert shot_path.path is None and "rig" in shot_path.problem
    assert bpy.ops.ex4d.refresh_coverage() == {"FINISHED"}
    assert shot_path.path is not None


def test_each_window_shows_its_own_scene(imported):
    """The second window is another Blender scene's, with another camera and another range."""
    first, second = bpy.context.scene, bpy.data.scenes.new("second")
    for one in (imported, imported.ex4d_scene.source_camera):
        second.collection.objects.link(one)
    second.frame_start, second.frame_end = 13, 17
    second.ex4d_shot.camera = imported.ex4d_scene.source_camera
    live_coverage.of(first).shown = coverage_of([1.0] * 9)
    assert live_coverage.of(second).shown is None
    read()
    bpy.context.window.scene = second
    read()
    assert (shot_paths.of(first).frame_start, len(shot_paths.of(first).path)) == (11, 9)
    assert (shot_paths.of(second).frame_start, len(shot_paths.of(second).path)) == (13, 5)


def test_a_frustum_has_its_images_corners():
    (points,) = frustum_points(still(1), np.array([0]), 2.0)
    expected = [(0, 0, 0), (-2, -1, 2), (2, -1, 2), (2, 1, 2), (-2, 1, 2)]
    np.testing.assert_allclose(points, expected, atol=1e-6)


def test_the_path_is_broken_where_the_shot_cuts():
    whole, cut = path_lines(still(9), (0,), 1.0), path_lines(still(9), (0, 4), 1.0)
    # A frustum has 16 vertices, and 9 frames are so few that all of them have one.
    assert len(whole.frames) == 2 * 8 + 9 * 16 and len(cut.frames) == 2 * 7 + 9 * 16
    assert len(path_lines(still(5000), (0, 4), 1.0).positions) < 1000, "so that long shots are drawn as quickly"


def test_the_path_has_the_colours_of_coverage_and_its_worst_frame():
    coverage = coverage_of([1.0, 0.8, 0.3, 0.9])
    np.testing.assert_array_equal(frame_colors(4, 11, coverage), colors_of(coverage.seen))
    assert worst_frame(4, 11, coverage) == 2
    assert worst_frame(4, 11, coverage_of([1.0] * 4)) is None
    for frames, frame_start in ((5, 11), (4, 12)):  # of another shot
        assert len(np.unique(frame_colors(frames, frame_start, coverage), axis=0)) == 1
        assert worst_frame(frames, frame_start, coverage) is None


@pytest.mark.parametrize(("height", "scale"), [(44, 0.83), (33, 1.04), (38, 1.04), (41, 0.83), (60, 2.08)])
def test_the_strip_lies_above_the_frame_numbers(height, scale):
    bottom, top = strip_band(height, scale)
    assert not strip_is_in_header(height, scale) and 0.0 <= bottom < top <= height
    assert height - bottom < 6 * scale, "the numbers start 6 pixels down, and the scroll bar is at the other edge"


@pytest.mark.parametrize(("height", "scale"), [(5, 2.08), (2, 2.08), (1, 1.0)])
def test_the_strip_is_in_the_header_where_blenders_layout_leaves_no_timeline(height, scale):
    """4.3 and 5.2 leave 5 and 2 pixels of it at an interface scale of 2."""
    assert strip_is_in_header(height, scale)
