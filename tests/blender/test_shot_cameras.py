"""Which camera a shot takes: its own, the active one, or those of markers; and what is said where that surprises."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.coverage.shot_path import shot_paths
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.shots.camera_mismatch import camera_mismatch
from blender_addon.shots.objects import shot_cuts, shot_objects
from blender_addon.shots.properties import active_shot
from blender_addon.takes import operators
from ex4d_core.trajectories import Trajectory

from .conftest import tick_round


@pytest.fixture
def imported(card_scene) -> bpy.types.Object:
    """The card's scene at frames 11 to 19, with the cameras A and B beside the one that filmed it."""
    imported = import_scene(card_scene, ImportSettings(frame_start=11))
    for name, preset in (("A", "truck"), ("B", "crane")):
        camera_from_preset(imported, Trajectory(preset), name=name)
    return imported


def camera(name: str) -> bpy.types.Object:
    return bpy.data.objects[name]


def shot():
    return active_shot(bpy.context.scene)


def bind(frame: int, name: str, marker: str = "") -> None:
    bpy.context.scene.timeline_markers.new(marker or f"F_{frame}", frame=frame).camera = camera(name)


def takes() -> list[tuple[str, int, int]]:
    return [(cut.camera.name, cut.frame_start, cut.frame_end) for cut in shot_cuts(bpy.context, 11, 19)]


def test_choosing_a_camera_looks_through_it(imported):
    shot().camera = camera("A")
    assert bpy.context.scene.camera == camera("A")
    bpy.ops.ex4d.add_shot()
    shot().camera = camera("B")
    assert bpy.context.scene.camera == camera("B")
    bpy.context.scene.ex4d_shots[0].camera = imported.ex4d_scene.source_camera
    assert bpy.context.scene.camera == camera("B"), "only the active shot's camera is looked through"


def test_looking_through_another_camera_is_named_and_has_two_ways_out(imported):
    shot().camera = camera("A")
    assert camera_mismatch(bpy.context) is None
    bpy.context.scene.camera = camera("B")
    mismatch = camera_mismatch(bpy.context)
    assert (mismatch.looked, mismatch.taken) == (camera("B"), camera("A"))
    assert mismatch.text == "You look through B; takes use A"
    bpy.ops.ex4d.look_through_shot()
    assert camera_mismatch(bpy.context) is None and bpy.context.scene.camera == camera("A")
    bpy.context.scene.camera = camera("B")
    bpy.ops.ex4d.shoot_view()
    assert camera_mismatch(bpy.context) is None and shot().camera == camera("B")


def test_a_viewport_with_a_camera_of_its_own_counts(imported):
    shot().camera = camera("A")
    area = next(area for area in bpy.context.screen.areas if area.type == "VIEW_3D")
    area.spaces.active.camera, area.spaces.active.use_local_camera = camera("B"), True
    with bpy.context.temp_override(area=area, space_data=area.spaces.active):
        assert camera_mismatch(bpy.context).text == "You look through B; takes use A"
        bpy.ops.ex4d.look_through_shot()
        assert camera_mismatch(bpy.context) is None
    assert not area.spaces.active.use_local_camera
    assert area.spaces.active.region_3d.view_perspective == "CAMERA"


def test_a_take_says_that_another_camera_is_looked_through(imported, monkeypatch, capfd):
    sent = []
    monkeypatch.setattr(operators, "send_take", lambda _, request, *__: sent.append(request))
    shot().camera = camera("A")
    bpy.context.scene.camera = camera("B")
    bpy.ops.ex4d.send_take()
    assert "You look through B; takes use A" in capfd.readouterr().out
    expected = sample_camera(camera("A"), imported, 11, 19).world_to_camera
    np.testing.assert_array_equal(sent[0].camera.world_to_camera, expected)


def test_a_shot_follows_the_active_camera_until_a_camera_is_chosen(imported):
    shot().camera = camera("A")
    bpy.ops.ex4d.follow_active_camera()
    bpy.context.scene.camera = camera("B")
    assert shot_objects(bpy.context)[1] == camera("B") and camera_mismatch(bpy.context) is None
    assert takes() == [("B", 11, 19)]
    bpy.ops.ex4d.duplicate_shot()
    assert shot().use_active_camera
    shot().camera = camera("A")
    assert not shot().use_active_camera and takes() == [("A", 11, 19)]


def test_markers_cut_as_blender_plays_them(imported):
    shot().use_active_camera = True
    bind(13, "A")
    bind(16, "B")
    bind(40, "A")
    assert takes() == [("A", 11, 15), ("B", 16, 19)]
    for frame, name in ((11, "A"), (13, "A"), (15, "A"), (16, "B"), (19, "B")):
        bpy.context.scene.frame_set(frame)
        assert bpy.context.scene.camera == camera(name), "Blender itself"


def test_a_marked_camera_that_is_not_rendered_is_ignored_as_in_blender(imported):
    shot().use_active_camera = True
    bind(11, "A")
    bind(15, "B")
    camera("B").hide_render = True
    assert takes() == [("A", 11, 19)]
    bpy.context.scene.frame_set(17)
    assert bpy.context.scene.camera == camera("A"), "Blender itself"


def test_a_take_of_a_marked_range_is_cut(imported, monkeypatch):
    sent = []
    monkeypatch.setattr(operators, "send_take", lambda _, request, *__: sent.append(request))
    shot().use_active_camera = True
    bind(11, "A")
    bind(15, "B")
    bpy.ops.ex4d.send_take()
    first, second = (sample_camera(camera(name), imported, 11, 19).world_to_camera for name in "AB")
    np.testing.assert_array_equal(sent[0].camera.world_to_camera, np.concatenate([first[:4], second[4:]]))


def test_the_drawn_path_is_cut_too(imported):
    shot().use_active_camera = True
    bind(11, "A")
    bind(15, "B")
    tick_round()
    shot_path = shot_paths.of(bpy.context.scene)
    while shot_path.path is None:
        tick_round()
    assert shot_path.cut_starts == (0, 4) and len(shot_path.path) == 9


def test_markers_that_a_shot_does_not_follow_are_named(imported):
    shot().camera = camera("A")
    bind(11, "A")
    assert camera_mismatch(bpy.context) is None
    bind(15, "B")
    mismatch = camera_mismatch(bpy.context)
    assert mismatch.by_markers and mismatch.text == "Markers switch to B at frame 15; takes use A throughout"
    bpy.ops.ex4d.follow_active_camera()
    assert camera_mismatch(bpy.context) is None


def test_markers_make_shots(imported):
    with pytest.raises(RuntimeError, match="No marker has a camera"):
        bpy.ops.ex4d.shots_from_markers()
    bind(11, "A", "wide")
    bind(15, "B", "close")
    bpy.context.scene.frame_set(16)
    bpy.ops.ex4d.shots_from_markers()

    def made() -> list[tuple[str, str, bool, int, int]]:
        return [
            (one.label, one.camera.name, one.use_range, one.frame_start, one.frame_end)
            for one in bpy.context.scene.ex4d_shots
        ]

    assert made() == [("wide", "A", True, 11, 14), ("close", "B", True, 15, 19)]
    assert shot().label == "close", "the one at the current frame"
    assert camera_mismatch(bpy.context) is None
    bpy.context.scene.timeline_markers["close"].frame = 17
    bpy.ops.ex4d.shots_from_markers()
    assert made() == [("wide", "A", True, 11, 16), ("close", "B", True, 17, 19)], "updated, not added again"


def test_a_shot_that_was_set_up_before_stays_beside_those_of_markers(imported):
    shot().camera = camera("B")
    bind(11, "A", "wide")
    bpy.ops.ex4d.shots_from_markers()
    assert [one.label for one in bpy.context.scene.ex4d_shots] == ["B", "wide"]


def test_a_shot_is_named_after_its_camera_until_the_artist_names_it(imported):
    shot().camera = camera("A")
    assert shot().label == "A"
    shot().camera = camera("B")
    assert shot().label == "B"
    shot().label = "hero"
    shot().camera = camera("A")
    assert shot().label == "hero"
