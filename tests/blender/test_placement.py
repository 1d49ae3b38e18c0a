"""Size and ground of an imported scene: mesh and cameras move as one, and takes are asked for as before."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.scenes.ground import PlacementError, ground_in, plane_through, upright
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.placement import ground_of, scale_scene
from blender_addon.scenes.placement_operators import EX4D_OT_pick_ground
from blender_addon.takes.requests import build_request
from ex4d_core.trajectories import Trajectory


@pytest.fixture(scope="session")
def floor_scene(write_scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 frames, 96x64, of a floor before a wall, from a camera that is held at an angle 1.5 units above it."""
    return write_scene(tmp_path_factory.mktemp("scenes") / "floor", "9", "96", "64", "floor")


def heights(scene_object: bpy.types.Object, rows: slice) -> np.ndarray:
    """Blender's z of the pixels in some rows of the image, on the current frame."""
    seen = scene_object.evaluated_get(bpy.context.evaluated_depsgraph_get())
    positions = np.empty(3 * len(seen.data.vertices), dtype=np.float32)
    seen.data.vertices.foreach_get("co", positions)
    matrix = np.array(scene_object.matrix_world)
    grid = (positions.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).reshape(66, 98, 3)
    return grid[1:-1, 1:-1][rows, :, 2]


def request_of(scene_object: bpy.types.Object, camera: bpy.types.Object):
    return build_request(scene_object, camera, 1, 9)[1].camera


def place(scene_object: bpy.types.Object) -> None:
    """Scale and ground alignment, as the panel does them."""
    bpy.ops.ex4d.align_ground()
    bpy.ops.ex4d.set_scale(method="FACTOR", factor=2.54)
    bpy.context.view_layer.update()


def test_the_ground_in_the_footage_becomes_height_zero(floor_scene):
    imported = import_scene(floor_scene)
    bpy.context.scene.frame_set(4)
    assert bpy.ops.ex4d.align_ground() == {"FINISHED"}
    bpy.context.view_layer.update()
    assert np.abs(heights(imported, slice(48, 64))).max() < 1e-3
    eye = imported.ex4d_scene.source_camera.matrix_world.translation
    assert eye.z == pytest.approx(1.5, abs=1e-3)
    assert (eye.x, eye.y) == pytest.approx((0, 0), abs=0.6)  # it is turned about a point nearby, not thrown far away


def test_things_that_stand_on_the_ground_do_not_tilt_it():
    rng = np.random.default_rng(1)
    floor = np.column_stack([rng.uniform(-3, 3, (1000, 2)), np.zeros(1000)])
    clutter = rng.uniform((-1, 0, 0), (2, 3, 1.5), (1200, 3))
    found = ground_in(np.vstack([floor, clutter]), np.array([0, 0, 1.6]), np.array([0, 0, 1.0]))
    assert found.normal == pytest.approx([0, 0, 1], abs=2e-3)
    assert found.point[2] == pytest.approx(0, abs=0.01)


def test_a_wall_is_no_ground():
    rng = np.random.default_rng(1)
    wall = np.column_stack([rng.uniform(-3, 3, 500), np.full(500, 4.0), rng.uniform(-1, 1, 500)])
    with pytest.raises(PlacementError, match="pick three points"):
        ground_in(wall, np.zeros(3), np.array([0, 0, 1.0]))


def test_points_on_one_line_are_no_ground():
    with pytest.raises(PlacementError, match="on one line"):
        plane_through(np.array([[0, 0, 0], [1, 1, 0], [2, 2, 0.0]]), np.array([0, 0, 1.0]))


@pytest.mark.parametrize("normal", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.3, -0.2, 0.9)])
def test_a_plane_is_turned_upright_the_short_way(normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    plane = plane_through(
        np.array([1.0, 2.0, 3.0]) + np.linalg.svd(normal[None])[2][1:].repeat(2, axis=0) * [[1], [-1], [1], [-1]],
        np.array([1.0, 2.0, 3.0]) + normal,
    )
    matrix = upright(plane, 0.5)
    assert matrix[:3, :3] @ normal == pytest.approx([0, 0, 1], abs=1e-9)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    assert (matrix @ [*plane.point, 1])[:3] == pytest.approx([1, 2, 0.5])


@pytest.mark.parametrize("preset", ["orbit", "crane", "dolly_zoom"])
def test_a_shot_asks_for_the_same_after_scale_and_ground(floor_scene, preset):
    imported = import_scene(floor_scene)
    camera = camera_from_preset(imported, Trajectory(preset))
    before = request_of(imported, camera)
    place(imported)
    after = request_of(imported, camera)
    assert np.abs(np.array(camera.matrix_world) - np.eye(4)).max() > 1
    assert np.abs(after.world_to_camera - before.world_to_camera).max() < 1e-6
    assert np.abs(after.intrinsics - before.intrinsics).max() < 1e-6


def test_a_camera_that_is_not_tied_to_the_scene_stays_and_sees_another_part(floor_scene):
    imported = import_scene(floor_scene)
    camera = bpy.data.objects.new("own", bpy.data.cameras.new("own"))
    bpy.context.scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.4, -1.0, 2.0), (math.radians(80), 0, 0.1)
    bpy.context.view_layer.update()
    before, stood = request_of(imported, camera), camera.matrix_world.copy()
    place(imported)
    after = request_of(imported, camera)
    assert camera.matrix_world == stood
    assert np.abs(after.world_to_camera - before.world_to_camera).max() > 0.1
    # A point of the scene is seen where Blender shows it, its distance being in the scene's own units.
    in_scene = np.array([0.3, 0.5, 3.0])
    in_blender = imported.matrix_world @ mathutils.Vector(in_scene)
    local = camera.matrix_world.inverted() @ in_blender
    seen = after.world_to_camera[0] @ [*in_scene, 1.0]
    assert seen[:2] / seen[2] == pytest.approx([local.x / -local.z, -local.y / -local.z], abs=1e-5)
    assert seen[2] == pytest.approx(-local.z / imported.matrix_world.to_scale().x, rel=1e-5)


def test_the_shot_of_a_new_move_in_a_placed_scene_starts_at_the_source_view(floor_scene):
    imported = import_scene(floor_scene)
    place(imported)
    camera = camera_from_preset(imported, Trajectory("orbit"))
    assert request_of(imported, camera).world_to_camera[0] == pytest.approx(np.eye(4), abs=1e-5)


def test_two_points_and_their_real_distance_give_the_scale(card_scene):
    imported = import_scene(card_scene)
    camera = imported.ex4d_scene.source_camera.data
    before = camera.clip_end
    bpy.ops.ex4d.set_scale(method="DISTANCE", measured=0.5, distance=2.0)
    assert tuple(imported.matrix_world.to_scale()) == pytest.approx((4, 4, 4))
    assert camera.clip_end == pytest.approx(4 * before)  # what it saw, it sees still


def test_the_ground_stays_where_it_is_when_the_scale_changes(floor_scene):
    imported = import_scene(floor_scene)
    place(imported)
    assert np.abs(heights(imported, slice(48, 64))).max() < 5e-3
    assert imported.ex4d_scene.source_camera.matrix_world.translation.z == pytest.approx(1.5 * 2.54, abs=5e-3)


def test_the_cursor_and_selected_vertices_can_be_the_ground(floor_scene):
    imported = import_scene(floor_scene)
    found = ground_of(imported, 1, 0.4)
    cursor = bpy.context.scene.cursor
    cursor.location = found.point.tolist()
    cursor.rotation_euler = mathutils.Vector((0, 0, 1)).rotation_difference(found.normal.tolist()).to_euler()
    bpy.ops.ex4d.align_ground(method="CURSOR")
    bpy.context.view_layer.update()
    assert np.abs(heights(imported, slice(48, 64))).max() < 2e-3

    bpy.ops.ex4d.reset_placement()
    bpy.context.view_layer.objects.active = imported
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="DESELECT")
    bpy.ops.object.mode_set(mode="OBJECT")
    for row, column in ((50, 10), (62, 50), (55, 90)):
        imported.data.vertices[(row + 1) * 98 + column + 1].select = True
    bpy.ops.object.mode_set(mode="EDIT")
    assert bpy.ops.ex4d.align_ground(method="VERTICES") == {"FINISHED"}
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.context.view_layer.update()
    assert np.abs(heights(imported, slice(48, 64))).max() < 2e-3


def test_everything_goes_back_to_where_it_was_imported(floor_scene):
    imported = import_scene(floor_scene)
    before, clip = imported.matrix_world.copy(), imported.ex4d_scene.source_camera.data.clip_end
    place(imported)
    bpy.ops.ex4d.reset_placement()
    assert np.array(imported.matrix_world) == pytest.approx(np.array(before), abs=1e-6)
    assert imported.ex4d_scene.source_camera.data.clip_end == pytest.approx(clip)


def test_a_scene_scaled_to_nothing_comes_back_too(card_scene):
    imported = import_scene(card_scene)
    camera = imported.ex4d_scene.source_camera.data
    clip, imported.scale = camera.clip_end, (0.0, 0.0, 0.0)
    bpy.context.view_layer.update()
    assert bpy.ops.ex4d.reset_placement() == {"FINISHED"}
    assert tuple(imported.matrix_world.to_scale()) == pytest.approx((1, 1, 1))
    assert camera.clip_end == pytest.approx(clip)


def test_picked_points_that_span_no_ground_are_refused_with_what_to_do(card_scene):
    import_scene(card_scene)
    reports = []
    on_a_line = [mathutils.Vector((x, 2.0, 0.0)) for x in (0.0, 1.0, 2.0)]
    picking = SimpleNamespace(picked=on_a_line, report=lambda kind, text: reports.append((kind, text)))
    assert EX4D_OT_pick_ground.use(picking, bpy.context) == {"CANCELLED"}
    assert len(reports) == 1 and reports[0][0] == {"ERROR"} and "on one line" in reports[0][1]


def test_undo_takes_scale_and_ground_back(floor_scene):
    imported = import_scene(floor_scene)
    name, before = imported.name, np.array(imported.matrix_world)
    bpy.ops.ed.undo_push(message="imported")
    bpy.ops.ex4d.set_scale("EXEC_DEFAULT", True, method="FACTOR", factor=3.0)
    bpy.ops.ed.undo()
    assert np.array(bpy.data.objects[name].matrix_world) == pytest.approx(before, abs=1e-6)


def test_what_cannot_be_is_refused_with_what_to_do(card_scene):
    imported = import_scene(card_scene)
    with pytest.raises(RuntimeError, match="enter Edit Mode"):
        bpy.ops.ex4d.align_ground(method="VERTICES")
    with pytest.raises(RuntimeError, match="pick three points"):
        bpy.ops.ex4d.align_ground(share=0.3)  # the slanted wall is no ground
    with pytest.raises(PlacementError, match="above 0"):
        scale_scene(imported, -1.0)
    imported.keyframe_insert("location", frame=1)
    with pytest.raises(RuntimeError, match="is animated; clear its keyframes"):
        bpy.ops.ex4d.set_scale(factor=2.0)
    bpy.data.objects.remove(imported)
    with pytest.raises(RuntimeError, match="import one first"):
        bpy.ops.ex4d.align_ground()
