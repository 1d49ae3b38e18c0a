"""Preset moves become keyframes, and whatever moves a camera is read back as the path it really takes."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.scenes.importing import ImportSettings, import_scene
from ex4d_core.blender_cameras import world_to_camera_from_blender
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.scene import Scene
from ex4d_core.trajectories import PRESETS, Trajectory, shot_path


@pytest.fixture
def imported(card_scene) -> bpy.types.Object:
    return import_scene(card_scene, ImportSettings(frame_start=11))


@pytest.fixture
def camera(imported) -> bpy.types.Object:
    """A free camera of the artist's own, two units behind the scene's origin."""
    camera = bpy.data.objects.new("own", bpy.data.cameras.new("own"))
    bpy.context.scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.0, -2.0, 0.3), (math.radians(90), 0, 0)
    return camera


def expected_path(folder, trajectory: Trajectory) -> CameraPath:
    return shot_path(trajectory, Scene.open(folder))


def frozen(camera: bpy.types.Object, scene_object: bpy.types.Object, frames: range) -> np.ndarray:
    """(T, 4, 4) world-to-camera straight from Blender's evaluated matrices."""
    matrices = []
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        seen = camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
        matrices.append(
            world_to_camera_from_blender(np.array(seen.matrix_world)[None], np.array(scene_object.matrix_world))[0]
        )
    return np.stack(matrices)


@pytest.mark.parametrize("easing", ["linear", "ease_in_out"])
@pytest.mark.parametrize("preset", [*PRESETS, "-45"])
def test_a_preset_is_reproduced_on_every_frame(imported, card_scene, preset, easing):
    trajectory = Trajectory(preset, elevation=10.0 if preset in ("30", "orbit") else 0.0, easing=easing)
    expected = expected_path(card_scene, trajectory)

    sampled = sample_camera(camera_from_preset(imported, trajectory), imported, 11, 19)

    np.testing.assert_allclose(sampled.world_to_camera, expected.world_to_camera, atol=1e-5)
    np.testing.assert_allclose(sampled.intrinsics, expected.intrinsics, rtol=1e-5)
    assert (sampled.width, sampled.height) == (48, 32)


def test_the_source_camera_is_read_back_as_it_filmed(moving_scene):
    imported = import_scene(moving_scene)
    filmed = Scene.open(moving_scene).source_camera()
    sampled = sample_camera(imported.ex4d_scene.source_camera, imported, 1, 9)
    np.testing.assert_allclose(sampled.world_to_camera, filmed.world_to_camera, atol=1e-5)
    np.testing.assert_allclose(sampled.intrinsics, filmed.intrinsics, rtol=1e-5, atol=1e-4)


def test_a_move_in_a_moving_shot_starts_where_the_source_camera_is(moving_scene):
    imported = import_scene(moving_scene)
    filmed = Scene.open(moving_scene).source_camera()
    camera = camera_from_preset(imported, Trajectory("truck"), frame_start=5)
    sampled = sample_camera(camera, imported, 5, 9)
    np.testing.assert_allclose(sampled.world_to_camera[0], filmed.world_to_camera[4], atol=1e-5)
    np.testing.assert_allclose(sampled.intrinsics[0], filmed.intrinsics[4], rtol=1e-5, atol=1e-4)


def test_keyframes_are_in_blenders_axes_even_for_a_moved_scene(imported):
    imported.location = (5.0, 0.0, 0.0)
    bpy.context.view_layer.update()
    truck = camera_from_preset(imported, Trajectory("truck"))
    bpy.context.scene.frame_set(19)
    assert truck.location.x > 0.5 and truck.location.z == pytest.approx(0, abs=1e-6)
    assert truck.matrix_world.translation.x == pytest.approx(5 + truck.location.x, abs=1e-5)


def test_hand_set_keyframes_are_sampled_as_blender_interpolates_them(imported):
    camera = camera_from_preset(imported, Trajectory("truck"))
    camera.rotation_euler.z = 0.2
    camera.keyframe_insert("rotation_euler", frame=15)
    camera.data.lens = 50
    camera.data.keyframe_insert("lens", frame=11)
    camera.data.lens = 80
    camera.data.keyframe_insert("lens", frame=19)

    sampled = sample_camera(camera, imported, 11, 19)

    np.testing.assert_allclose(sampled.world_to_camera, frozen(camera, imported, range(11, 20)), atol=1e-6)
    assert sampled.intrinsics[0, 0, 0] == pytest.approx(50 / 36 * 48, rel=1e-5)
    assert sampled.intrinsics[8, 0, 0] == pytest.approx(80 / 36 * 48, rel=1e-5)
    assert sampled.intrinsics[0, 0, 0] < sampled.intrinsics[4, 0, 0] < sampled.intrinsics[8, 0, 0]


def test_constraints_parents_and_drivers_count(imported, camera):
    aim = bpy.data.objects.new("aim", None)
    bpy.context.scene.collection.objects.link(aim)
    aim.location = (0.0, 3.0, 0.0)
    aim.keyframe_insert("location", frame=11)
    aim.location = (1.0, 3.0, 0.5)
    aim.keyframe_insert("location", frame=19)
    track = camera.constraints.new("TRACK_TO")
    track.target, track.track_axis, track.up_axis = aim, "TRACK_NEGATIVE_Z", "UP_Y"
    dolly = bpy.data.objects.new("dolly", None)
    bpy.context.scene.collection.objects.link(dolly)
    dolly.scale = (2.0, 2.0, 2.0)
    camera.parent = dolly
    camera.driver_add("location", 0).driver.expression = "frame * 0.01"
    camera.data.driver_add("shift_x").driver.expression = "frame * 0.002"

    sampled = sample_camera(camera, imported, 11, 19)

    np.testing.assert_allclose(sampled.world_to_camera, frozen(camera, imported, range(11, 20)), atol=1e-6)
    rotation = sampled.world_to_camera[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (9, 3, 3)), atol=1e-5)
    in_blender = np.array([0.5, -0.25, 3.0])  # the aim of frame 15, in the scene's axes
    seen = sampled.world_to_camera[4] @ [*in_blender, 1]
    np.testing.assert_allclose(seen[:2] / seen[2], 0, atol=1e-4)
    assert sampled.intrinsics[0, 0, 2] == pytest.approx(24 - 0.022 * 48, abs=1e-4)
    assert sampled.intrinsics[8, 0, 2] == pytest.approx(24 - 0.038 * 48, abs=1e-4)


def test_a_camera_tied_to_the_moving_surface_is_sampled_on_it(imported, camera):
    camera.parent, camera.parent_type = imported, "VERTEX"
    camera.parent_vertices[0] = 17 * 50 + 20
    sampled = sample_camera(camera, imported, 11, 19)
    np.testing.assert_allclose(sampled.world_to_camera, frozen(camera, imported, range(11, 20)), atol=1e-6)
    assert np.abs(np.diff(sampled.world_to_camera[:, :3, 3], axis=0)).max() > 0.1  # the card passes there


def test_a_moved_turned_and_scaled_scene_gives_the_same_path(imported, card_scene):
    expected = expected_path(card_scene, Trajectory("orbit"))
    camera = camera_from_preset(imported, Trajectory("orbit"))
    imported.location, imported.scale = (3.0, -1.0, 2.0), (4.0, 4.0, 4.0)
    imported.rotation_euler.z += 0.7
    sampled = sample_camera(camera, imported, 11, 19)
    np.testing.assert_allclose(sampled.world_to_camera, expected.world_to_camera, atol=1e-5)


def test_resolution_and_pixel_aspect_count(imported, camera):
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 333, 222, 50
    render.pixel_aspect_x = 1.5
    sampled = sample_camera(camera, imported, 11, 11)
    assert (sampled.width, sampled.height) == (166, 111)
    assert sampled.intrinsics[0, 1, 1] / sampled.intrinsics[0, 0, 0] == pytest.approx(1.5)


def test_the_current_frame_is_the_same_afterwards(imported, camera):
    bpy.context.scene.frame_set(13, subframe=0.25)
    sample_camera(camera, imported, 11, 19)
    assert (bpy.context.scene.frame_current, bpy.context.scene.frame_subframe) == (13, 0.25)
    camera.data.type = "ORTHO"
    with pytest.raises(CameraError):
        sample_camera(camera, imported, 11, 19)
    assert bpy.context.scene.frame_current == 13


@pytest.mark.parametrize(("kind", "word"), [("ORTHO", "orthographic"), ("PANO", "panoramic")])
def test_other_than_perspective_cameras_are_refused(imported, camera, kind, word):
    camera.data.type = kind
    with pytest.raises(CameraError, match=f"'own' is {word}"):
        sample_camera(camera, imported, 11, 19)


def test_impossible_shots_are_refused(imported, camera):
    with pytest.raises(CameraError, match="ends at frame 10, before it starts at 11"):
        sample_camera(camera, imported, 11, 10)
    with pytest.raises(CameraError, match="no camera"):
        sample_camera(None, imported, 11, 19)
    imported.scale = (1.0, 2.0, 1.0)
    with pytest.raises(CameraError, match="scaled unevenly"):
        sample_camera(camera, imported, 11, 19)
    with pytest.raises(CameraError, match="frames 11 to 19"):
        camera_from_preset(imported, Trajectory("30"), frame_start=15, frames=6)


def test_a_camera_outside_the_view_layer_is_refused(imported, camera):
    away = bpy.data.collections.new("away")
    bpy.context.scene.collection.children.link(away)
    away.objects.link(camera)
    bpy.context.scene.collection.objects.unlink(camera)
    bpy.context.view_layer.layer_collection.children["away"].exclude = True
    with pytest.raises(CameraError, match="'own' is not in the current view layer"):
        sample_camera(camera, imported, 11, 19)


@pytest.mark.parametrize("what", ["object", "collection"])
def test_a_camera_that_is_disabled_in_viewports_is_refused(imported, camera, what):
    """Blender does not compute where it is then."""
    own = bpy.data.collections.new("own")
    bpy.context.scene.collection.children.link(own)
    own.objects.link(camera)
    bpy.context.scene.collection.objects.unlink(camera)
    (camera if what == "object" else own).hide_viewport = True
    with pytest.raises(CameraError, match=r"'own' .* disable either in viewports"):
        sample_camera(camera, imported, 11, 19)


def test_a_camera_that_is_hidden_is_sampled_as_ever(imported, camera):
    expected = sample_camera(camera, imported, 11, 19)
    camera.hide_set(True)
    imported.hide_set(True)
    camera.hide_render = True
    np.testing.assert_array_equal(sample_camera(camera, imported, 11, 19).world_to_camera, expected.world_to_camera)


def test_stretched_time_is_refused(imported, camera):
    bpy.context.scene.render.frame_map_new = 150
    with pytest.raises(CameraError, match="Time Stretching is 100 to 150"):
        sample_camera(camera, imported, 11, 19)


def test_the_operator_adds_the_camera_of_the_shot(imported):
    bpy.context.view_layer.objects.active = imported
    assert bpy.ops.ex4d.add_camera(preset="truck", use_amount=True, amount=0.5) == {"FINISHED"}
    camera = bpy.context.scene.ex4d_shot.camera
    assert camera is not None and bpy.context.scene.camera == camera
    with pytest.raises(RuntimeError, match="behind the pivot"):
        bpy.ops.ex4d.add_camera(preset="dolly_in", use_amount=True, amount=2.0)
