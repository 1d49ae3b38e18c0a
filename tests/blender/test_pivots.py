"""Moves about what the artist looks at: the picture's middle, the 3D cursor, an object, a point picked on the scene."""

from __future__ import annotations

import math
from types import SimpleNamespace

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.keyframes import curves_of
from blender_addon.cameras.moves import handle_of, measure_of, move_of, radius_of
from blender_addon.cameras.pivots import EX4D_OT_pick_pivot, pivot_settings, place_of
from blender_addon.cameras.sampling import sample_camera
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.surface_picking import seen_point
from blender_addon.shots.properties import active_shot
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.trajectories import arc, move, orbit, shot_path

# On the card of the test's scene in its first frame, in the scene's world and in Blender's.
ON_CARD, ON_CARD_IN_BLENDER = (-0.35, 0.1, 2.0), (-0.35, 2.0, -0.1)


@pytest.fixture
def imported(card_scene) -> bpy.types.Object:
    return import_scene(card_scene, ImportSettings(frame_start=11))


def add(preset: str, **settings) -> bpy.types.Object:
    assert bpy.ops.ex4d.add_camera(preset=preset, **settings) == {"FINISHED"}
    return active_shot(bpy.context.scene).camera


def is_path(camera: bpy.types.Object, expected: CameraPath) -> None:
    sampled = sample_camera(camera, camera.parent, 11, 19)
    np.testing.assert_allclose(sampled.world_to_camera, expected.world_to_camera, atol=1e-5)
    np.testing.assert_allclose(sampled.intrinsics, expected.intrinsics, rtol=1e-5)


def pick(scene_object: bpy.types.Object, place: tuple[float, ...]) -> None:
    """What the operator does after a click that met the scene there, in Blender's world."""
    click = SimpleNamespace(picked=[mathutils.Vector(place)])
    assert EX4D_OT_pick_pivot.use(click, bpy.context) == {"FINISHED"}


def test_moves_are_about_the_middle_of_the_picture_and_arcs_about_the_originals_point(imported, card_scene):
    package = Scene.open(card_scene)
    # The card stands out; the original's point is behind it.
    assert package.manifest.middle_distance < package.manifest.subject_distance - 0.1
    is_path(add("orbit"), shot_path(orbit(30, pivot=package.manifest.middle_distance), package))
    pick(imported, ON_CARD_IN_BLENDER)
    is_path(add("30"), shot_path(arc(30), package))
    is_path(add("zoom_in"), shot_path(move("zoom_in"), package))


@pytest.mark.parametrize("preset", ["orbit", "dolly_in", "dolly_zoom", "crane"])
def test_the_3d_cursor_is_the_pivot_wherever_the_scene_stands(imported, card_scene, preset):
    imported.location, imported.scale = (3.0, -1.0, 2.0), (2.0, 2.0, 2.0)
    imported.rotation_euler.z += 0.7
    bpy.context.view_layer.update()
    bpy.context.scene.cursor.location = imported.matrix_world @ mathutils.Vector(ON_CARD)
    pivot_settings(imported).kind = "CURSOR"
    camera = add(preset)
    is_path(camera, shot_path(move(preset, pivot=ON_CARD), Scene.open(card_scene)))
    bpy.context.scene.cursor.location = (0.0, 0.0, 0.0)  # the move keeps its own
    move_of(camera).amount = 0.2
    is_path(camera, shot_path(move(preset, 0.2, pivot=ON_CARD), Scene.open(card_scene)))


def test_the_object_that_was_active_is_the_pivot_and_stays_it(imported, card_scene):
    target = bpy.data.objects.new("lamp", None)
    bpy.context.scene.collection.objects.link(target)
    target.location = ON_CARD_IN_BLENDER
    bpy.context.view_layer.objects.active = target
    pivot_settings(imported).kind = "OBJECT"
    bpy.context.view_layer.update()
    for _ in range(2):  # the first move's camera becomes the active object
        is_path(add("orbit"), shot_path(orbit(30, pivot=ON_CARD), Scene.open(card_scene)))


@pytest.mark.parametrize("active", ["the scene", "a camera of it"])
def test_the_scene_itself_is_no_pivot(imported, active):
    bpy.context.view_layer.objects.active = imported if active == "the scene" else add("truck")
    pivot_settings(imported).kind = "OBJECT"
    assert pivot_settings(imported).target is None
    with pytest.raises(RuntimeError, match="no object is the pivot yet; choose one"):
        add("orbit")


def test_a_deleted_object_is_named(imported):
    target = bpy.data.objects.new("lamp", None)
    bpy.context.scene.collection.objects.link(target)
    bpy.context.view_layer.objects.active = target
    pivot_settings(imported).kind = "OBJECT"
    bpy.context.scene.collection.objects.unlink(target)
    with pytest.raises(RuntimeError, match="pivot 'lamp' is no longer in this scene; choose another"):
        add("orbit")
    bpy.data.objects.remove(target)
    with pytest.raises(RuntimeError, match="pivot 'lamp' is no longer in this scene; choose another"):
        add("orbit")
    assert place_of(imported, bpy.context) is None
    assert active_shot(bpy.context.scene).camera is None
    add("30")  # needs no pivot


def test_a_pivot_behind_the_camera_is_refused(imported):
    pivot_settings(imported).kind = "CURSOR"
    bpy.context.scene.cursor.location = (0.0, -3.0, 0.0)
    with pytest.raises(RuntimeError, match=r"behind the camera .* 3 scene units"):
        add("orbit")
    assert active_shot(bpy.context.scene).camera is None


def test_nothing_picked_yet_says_how_to_pick(imported):
    pivot_settings(imported).kind = "POINT"
    with pytest.raises(RuntimeError, match="press Pick Pivot"):
        add("orbit")


def test_a_picked_point_moves_with_the_scene_and_is_saved_with_it(imported, card_scene, tmp_path):
    imported.location = (3.0, -1.0, 2.0)
    bpy.context.view_layer.update()
    pick(imported, tuple(imported.matrix_world @ mathutils.Vector(ON_CARD)))
    imported.scale = (2.0, 2.0, 2.0)
    bpy.context.view_layer.update()
    expected = imported.matrix_world @ mathutils.Vector(ON_CARD)
    np.testing.assert_allclose(place_of(imported, bpy.context), expected, atol=1e-5)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "pivot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "pivot.blend"))
    is_path(add("orbit"), shot_path(orbit(30, pivot=ON_CARD), Scene.open(card_scene)))


def test_undo_takes_a_pick_back(imported):
    name = imported.name
    bpy.ops.ed.undo_push(message="imported")
    pick(imported, ON_CARD_IN_BLENDER)
    bpy.ops.ed.undo_push(message="Pick Pivot")
    bpy.ops.ed.undo()
    assert pivot_settings(bpy.data.objects[name]).kind == "MIDDLE"


def test_clicks_meet_the_mesh_of_the_current_frame_through_its_stretched_faces(imported):
    """The card moves to the right before the wall; from aside, stretched faces behind its edges cover the wall."""

    def under(origin: tuple[float, ...], direction: tuple[float, ...]) -> mathutils.Vector | None:
        rays = (mathutils.Vector(one) for one in (origin, direction))
        return seen_point(imported, *rays, bpy.context.evaluated_depsgraph_get())

    ahead = ((0.0, 0.0, 0.0), (-0.22, 1.0, 0.0))
    bpy.context.scene.frame_set(11)
    assert under(*ahead).y == pytest.approx(2.0, abs=0.01)  # the card
    bpy.context.scene.frame_set(19)
    assert under(*ahead).y > 4.0  # the wall, where the card was
    bpy.context.scene.frame_set(11)
    eye = mathutils.Vector((3.0, 1.0, 0.0))
    to_wall = mathutils.Vector((-1.45, 4.15, 0.0)) - eye
    to_object = imported.matrix_world.inverted()
    _, nearest, _, _ = imported.ray_cast(to_object @ eye, (to_object.to_3x3() @ to_wall).normalized())
    assert (imported.matrix_world @ nearest).x > -0.3  # on a stretched face behind the card's right edge
    assert under(eye, to_wall).x == pytest.approx(-1.45, abs=0.02)
    assert under((0.0, 0.0, 0.0), (0.0, -1.0, 0.0)) is None


def test_a_move_is_made_again_around_another_pivot(imported, card_scene):
    camera, package = add("orbit", use_amount=True, amount=40.0), Scene.open(card_scene)
    pick(imported, ON_CARD_IN_BLENDER)
    assert bpy.ops.ex4d.move_around_pivot(camera=camera.name) == {"FINISHED"}
    is_path(camera, shot_path(orbit(40, pivot=ON_CARD), package))
    pivot_settings(imported).kind = "MIDDLE"
    bpy.ops.ex4d.move_around_pivot(camera=camera.name)
    is_path(camera, shot_path(orbit(40), package))


def test_keys_that_were_edited_and_moves_without_a_pivot_stay(imported):
    camera = add("orbit")
    curve = curves_of(camera)[0]
    curve.keyframe_points[-1].co.y += 1.0
    curve.update()
    with pytest.raises(RuntimeError, match="were edited"):
        bpy.ops.ex4d.move_around_pivot(camera=camera.name)
    with pytest.raises(RuntimeError, match="no move of EX-4D"):
        bpy.ops.ex4d.move_around_pivot(camera=add("30").name)
    with pytest.raises(RuntimeError, match="no move of EX-4D"):
        bpy.ops.ex4d.move_around_pivot(camera="gone")


@pytest.mark.parametrize("preset", ["dolly_in", "dolly_out", "dolly_zoom", "truck", "crane", "orbit"])
def test_handles_end_where_a_move_about_a_point_aside_ends(imported, preset):
    pick(imported, ON_CARD_IN_BLENDER)
    camera = add(preset)
    kept = move_of(camera)
    handle = handle_of(camera, kept)
    if measure_of(kept) == "ANGLE":
        angle, radius = kept.angle, radius_of(camera, kept)
        tip = handle @ mathutils.Vector((math.sin(angle) * radius, math.cos(angle) * radius, 0.0))
        tip_other_way = handle @ mathutils.Vector((-math.sin(angle) * radius, math.cos(angle) * radius, 0.0))
    else:
        tip = tip_other_way = handle @ mathutils.Vector((0.0, 0.0, kept.reach))
    bpy.context.scene.frame_set(19)
    end = camera.matrix_world.translation
    assert min((tip - end).length, (tip_other_way - end).length) < 1e-4


def test_a_move_of_an_older_file_stays_straight_ahead(imported, card_scene):
    camera, package = add("orbit"), Scene.open(card_scene)
    kept = move_of(camera)
    kept.pivot, kept.distance = (0.0, 0.0, 0.0), package.manifest.subject_distance  # as 0.1 left them
    kept.amount = 50.0
    is_path(camera, shot_path(orbit(50, pivot=package.manifest.subject_distance), package))


def test_freeze_and_orbit_turns_around_the_pivot(imported):
    pick(imported, ON_CARD_IN_BLENDER)
    bpy.context.scene.frame_set(13)
    bpy.ops.ex4d.retime_shot(preset="FREEZE_ORBIT", hold=4, degrees=40.0)
    camera = active_shot(bpy.context.scene).camera
    path = sample_camera(camera, imported, 13, 17)
    distances = np.linalg.norm(path.camera_to_world[:, :3, 3] - ON_CARD, axis=1)
    np.testing.assert_allclose(distances, np.linalg.norm(ON_CARD), atol=1e-4)
    assert not np.allclose(path.world_to_camera[0], path.world_to_camera[-1], atol=0.1)
