"""What a camera move asks of the generator, known while its keyframes are being dragged."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.keyframes import curves_of
from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.connection.session import session
from blender_addon.coverage.drawing import colors_of
from blender_addon.coverage.live_coverage import FAR_ASIDE_DEGREES, LITTLE_KNOWN, LiveCoverage, live_coverage
from blender_addon.coverage.path import is_keyframed_only, path_in_slices
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.shots.properties import active_shot
from blender_addon.shots.source_time import set_time_keys
from ex4d_core.trajectories import Trajectory

from .conftest import tick_round, tick_until


@pytest.fixture
def shot(card_scene) -> bpy.types.Object:
    """The card's scene at frame 11, and a camera that circles it by 60 degrees."""
    imported = import_scene(card_scene, ImportSettings(frame_start=11))
    camera_from_preset(imported, Trajectory("orbit", 60.0), name="arc")
    bpy.context.scene.ex4d_shot.camera = bpy.data.objects["arc"]
    return imported


def coverage() -> LiveCoverage:
    """Of the open Blender scene."""
    return live_coverage.of(bpy.context.scene)


def is_updated(before) -> bool:
    """Whether there are newer values than these, and none are asked for."""
    return coverage().shown is not before and bool(coverage().shown.fresh.all())


def whole(reading):
    """What a generator returns."""
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("preset", ["orbit", "zoom_in", "crane"])
def test_curves_give_the_path_that_frame_by_frame_sampling_gives(shot, preset):
    camera = camera_from_preset(shot, Trajectory(preset), name="moving")
    assert is_keyframed_only(camera, shot)
    shot.location = (1.0, 2.0, 3.0)
    bpy.context.view_layer.update()
    quick = whole(path_in_slices(camera, shot, 11, 19))
    slow = sample_camera(camera, shot, 11, 19)
    np.testing.assert_allclose(quick.world_to_camera, slow.world_to_camera, atol=2e-6)
    np.testing.assert_allclose(quick.intrinsics, slow.intrinsics, rtol=1e-6)


def test_curves_may_be_deleted_while_they_are_read(shot):
    camera = bpy.data.objects["arc"]
    reading = path_in_slices(camera, shot, 11, 19)
    next(reading)
    bpy.data.actions.remove(camera.animation_data.action)  # and its curves with it
    path = whole(reading)
    assert len(path) == 9
    np.testing.assert_allclose(path.world_to_camera[2:], path.world_to_camera[1:2].repeat(7, axis=0), atol=1e-7)


def test_a_rig_is_not_taken_for_keyframes(shot):
    camera = bpy.data.objects["arc"]
    constraint = camera.constraints.new("DAMPED_TRACK")
    assert not is_keyframed_only(camera, shot)
    camera.constraints.remove(constraint)
    assert is_keyframed_only(camera, shot)
    for name, delta in (("location", (0, 0, 1)), ("rotation_euler", (0, 1, 0)), ("rotation_quaternion", (0, 1, 0, 0))):
        before = getattr(camera, f"delta_{name}").copy()
        setattr(camera, f"delta_{name}", delta)
        assert not is_keyframed_only(camera, shot)
        setattr(camera, f"delta_{name}", before)
    assert is_keyframed_only(camera, shot)
    camera.data.driver_add("lens")
    assert not is_keyframed_only(camera, shot)


def test_coverage_follows_an_edited_keyframe(connected, shot):
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: coverage().shown is not None, "coverage")
    before = coverage().shown
    assert (before.frame_start, len(before.seen)) == (11, 9)
    assert before.seen[0] > 0.99 and before.seen[-1] < before.seen[0]
    assert before.view_angle[-1] == pytest.approx(60.0, abs=0.1)

    for curve in curves_of(bpy.data.objects["arc"]):
        if curve.data_path == "location" and curve.array_index == 0:
            for point in curve.keyframe_points:
                point.co.y += 3.0
            curve.update()
    bpy.data.objects["arc"].animation_data.action.update_tag()
    bpy.context.view_layer.update()
    tick_until(lambda: is_updated(before), "coverage of the edited move")
    assert coverage().shown.seen[0] < before.seen[0] - 0.1


def move_key(camera: bpy.types.Object, frame: int, by: float) -> None:
    """Drag one of the camera's keys to the side, as the Graph Editor does."""
    curve = next(one for one in curves_of(camera) if (one.data_path, one.array_index) == ("location", 0))
    point = next(one for one in curve.keyframe_points if one.co.x == frame)
    point.co.y += by
    curve.update()
    camera.animation_data.action.update_tag()
    bpy.context.view_layer.update()


def test_an_edited_time_curve_asks_again_about_the_frames_that_show_another_moment(connected, shot):
    scene = bpy.context.scene
    set_time_keys(active_shot(scene), [(11, 13.0), (19, 13.0)])
    scene.ex4d_coverage.live = True
    tick_until(lambda: coverage().shown is not None, "coverage")
    before = coverage().shown
    assert coverage().asked.source_frames == (2,) * 9
    (curve,) = (one for one in curves_of(scene) if one.data_path.endswith("source_frame"))
    curve.keyframe_points[1].co.y = 15.0
    curve.update()
    scene.animation_data.action.update_tag()
    bpy.context.view_layer.update()
    tick_until(lambda: is_updated(before), "coverage of the new moments")
    assert coverage().asked.source_frames == (2, 2, 3, 3, 3, 3, 4, 4, 4)
    assert coverage().asked_frames == slice(2, 9)


def test_another_pixel_aspect_is_another_image(connected, shot):
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: coverage().shown is not None, "coverage")
    before = coverage().shown
    bpy.context.scene.render.pixel_aspect_y = 2.0  # sees more above and below
    tick_until(lambda: is_updated(before), "coverage of the taller picture")
    assert coverage().shown.seen[0] < before.seen[0] - 0.1


def test_stretched_time_is_named_and_coverage_resumes_without_it(connected, shot):
    render = bpy.context.scene.render
    render.frame_map_new = 150
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: "Time Stretching" in coverage().problem, "the note on time stretching")
    assert coverage().shown is None
    render.frame_map_new = 100
    tick_until(lambda: coverage().shown is not None, "coverage")
    assert coverage().problem == ""


def test_only_what_moved_is_asked_for_and_dimmed_meanwhile(connected, shot):
    camera = bpy.data.objects["arc"]
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: coverage().shown is not None, "coverage")
    before, asked = coverage().shown, []
    move_key(camera, 14, 2.0)

    def answered() -> bool:
        if coverage().shown is not before and not coverage().shown.fresh.all():
            asked.append((coverage().asked_frames, np.flatnonzero(~coverage().shown.fresh).tolist()))
            assert (coverage().shown.seen == before.seen).all()  # old values until there are new ones
        return coverage().shown is not before and bool(coverage().shown.fresh.all())

    tick_until(answered, "the new value")
    assert asked and all(one == (slice(3, 4), [3]) for one in asked)
    assert abs(coverage().shown.seen[3] - before.seen[3]) > 0.02
    others = np.arange(9) != 3
    assert (coverage().shown.seen[others] == before.seen[others]).all()


def test_an_answer_is_shown_though_the_camera_has_moved_on(connected, shot):
    camera = bpy.data.objects["arc"]
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: coverage().shown is not None, "coverage")
    move_key(camera, 12, 1.0)
    tick_until(lambda: not coverage().shown.fresh.all(), "the question")
    move_key(camera, 18, 1.0)
    now = sample_camera(camera, shot, 11, 19).world_to_camera

    def known() -> bool:
        answered = coverage().answered.camera.world_to_camera
        return np.allclose(answered, now, atol=2e-6) and coverage().shown.fresh.all()

    tick_until(known, "the answer about the camera as it is now")


def test_where_little_is_known_it_says_so(connected, shot):
    camera = camera_from_preset(shot, Trajectory("orbit", 170.0), name="round")
    bpy.context.scene.ex4d_shot.camera = camera
    assert bpy.ops.ex4d.refresh_coverage() == {"FINISHED"}
    tick_until(lambda: coverage().shown is not None, "coverage")
    assert coverage().shown.seen.min() < LITTLE_KNOWN or coverage().shown.view_angle.max() > FAR_ASIDE_DEGREES
    assert "from frame 1" in coverage().shown.warning


def test_a_rig_is_read_on_request(connected, shot):
    camera = bpy.data.objects["arc"]
    camera.constraints.new("LIMIT_DISTANCE").target = shot
    bpy.context.scene.ex4d_coverage.live = True
    tick_until(lambda: "rig" in coverage().problem, "the note on rigs")
    assert coverage().shown is None
    assert bpy.ops.ex4d.refresh_coverage() == {"FINISHED"}
    tick_until(lambda: coverage().shown is not None, "coverage")


def test_nothing_is_sent_unless_coverage_is_live(connected, shot):
    tick_until(lambda: session().connected, "the backend")
    for _ in range(20):
        tick_round()
    assert coverage().shown is None and coverage().asked is None and not coverage().waiting


def test_colours_show_the_visible_fraction():
    all_seen, little, nothing = colors_of(np.array([1.0, LITTLE_KNOWN, 0.0]))
    assert all_seen[1] > all_seen[0] and little[0] > little[1]
    np.testing.assert_array_equal(little, nothing)
    fresh, stale = colors_of(np.array([1.0, 1.0]), np.array([True, False]))
    assert fresh[3] == 1.0 and stale[3] < 0.5
