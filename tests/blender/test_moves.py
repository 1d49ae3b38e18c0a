"""Moves stay adjustable: by panel and viewport handles until their keys are edited, and as assets for other scenes."""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.asset_operators import EX4D_OT_save_move
from blender_addon.cameras.keyframes import curves_of
from blender_addon.cameras.move_assets import is_move
from blender_addon.cameras.moves import handle_of, has_edited_keys, measure_of, move_of, radius_of
from blender_addon.cameras.sampling import sample_camera
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.shots.properties import active_shot
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.trajectories import Trajectory, shot_path


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


def test_a_new_moves_camera_is_selected_and_active_so_that_its_keys_show(imported):
    bpy.context.view_layer.objects.active = imported
    imported.select_set(True)
    first = add("truck")
    assert bpy.context.object == first and bpy.context.selected_objects == [first]
    second = add("crane")
    assert bpy.context.object == second and bpy.context.selected_objects == [second]
    keys = {curve.id_data for curve in curves_of(bpy.context.object)}
    assert keys == {second.animation_data.action}


def test_edit_mode_is_left_for_a_new_move(imported):
    bpy.context.view_layer.objects.active = imported
    bpy.ops.object.mode_set(mode="EDIT")
    camera = add("truck")
    assert bpy.context.mode == "OBJECT" and bpy.context.object == camera


def test_keys_follow_the_amounts_of_a_move(imported, card_scene):
    camera, package = add("truck"), Scene.open(card_scene)
    move = move_of(camera)
    move.amount, move.easing = 0.6, "ease_in"
    is_path(camera, shot_path(Trajectory("truck", 0.6, easing="ease_in"), package))
    move.amount = 0.0
    is_path(camera, shot_path(Trajectory("truck", 0.0), package))
    orbit = add("orbit", other_way=True)
    move_of(orbit).angle = math.radians(50)
    move_of(orbit).elevation = 10.0
    is_path(orbit, shot_path(Trajectory("orbit", 50.0, 10.0), package))
    arc = add("30")
    move_of(arc).angle = math.radians(-45)
    is_path(arc, shot_path(Trajectory("-45"), package))


def test_an_impossible_amount_is_said_and_changes_no_keys(imported, card_scene):
    camera = add("dolly_in")
    move_of(camera).amount = 1.5
    assert "behind the pivot" in move_of(camera).problem
    is_path(camera, shot_path(Trajectory("dolly_in"), Scene.open(card_scene)))
    move_of(camera).amount = 0.5
    assert move_of(camera).problem == ""


def test_edited_keys_are_the_artists_until_they_are_reset(imported, card_scene):
    camera = add("truck")
    curve = next(one for one in curves_of(camera) if one.data_path == "location")
    curve.keyframe_points[-1].co.y += 1.0
    curve.update()
    assert has_edited_keys(camera)
    edited = sample_camera(camera, imported, 11, 19)
    move_of(camera).amount = 0.1
    is_path(camera, edited)
    bpy.ops.ex4d.reset_move(camera=camera.name)
    is_path(camera, shot_path(Trajectory("truck", 0.1), Scene.open(card_scene)))
    assert not has_edited_keys(camera)


def test_a_move_is_still_adjustable_when_the_file_is_opened_again(imported, tmp_path):
    add("truck")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "moves.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "moves.blend"))
    assert not has_edited_keys(active_shot(bpy.context.scene).camera)


@pytest.mark.parametrize("preset", ["truck", "pedestal", "crane", "dolly_in", "dolly_out", "dolly_zoom"])
def test_the_tip_of_the_arrow_is_where_the_move_ends(imported, preset):
    imported.location, imported.scale = (3.0, -1.0, 2.0), (2.0, 2.0, 2.0)
    imported.rotation_euler.z += 0.7
    bpy.context.view_layer.update()
    camera = add(preset)
    move = move_of(camera)
    assert measure_of(move) == "DISTANCE"
    tip = handle_of(camera, move) @ mathutils.Vector((0.0, 0.0, move.reach))
    bpy.context.scene.frame_set(19)
    np.testing.assert_allclose(tip, camera.matrix_world.translation, atol=1e-4)


@pytest.mark.parametrize("amount", [40.0, -40.0])
def test_the_dial_turns_from_the_source_camera_to_where_the_move_ends(imported, amount):
    camera = add("orbit", use_amount=True, amount=amount)
    move = move_of(camera)
    assert measure_of(move) == "ANGLE" and move.angle == pytest.approx(math.radians(amount))
    turn = mathutils.Matrix.Rotation(move.angle, 4, "Z")
    end = handle_of(camera, move) @ turn @ mathutils.Vector((0.0, radius_of(camera, move), 0.0))
    bpy.context.scene.frame_set(19)
    np.testing.assert_allclose(end, camera.matrix_world.translation, atol=1e-4)


def test_zooms_and_the_ellipse_have_no_handle(imported):
    assert measure_of(move_of(add("zoom_in"))) == measure_of(move_of(add("180"))) == ""
    assert move_of(imported.ex4d_scene.source_camera) is None


def test_a_saved_move_gives_the_same_path_in_its_own_scene(imported):
    expected = sample_camera(add("dolly_zoom"), imported, 11, 19)
    assert bpy.ops.ex4d.save_move(asset_name="vertigo") == {"FINISHED"}
    action = bpy.data.actions["vertigo"]
    assert action.asset_data is not None and "EX-4D" in action.asset_data.tags and is_move(action)
    assert bpy.ops.ex4d.add_asset_camera(action="vertigo") == {"FINISHED"}
    added = active_shot(bpy.context.scene)
    assert (added.label, added.camera.name) == ("vertigo", "Camera vertigo")
    is_path(added.camera, expected)


def test_a_saved_move_fits_another_scene_and_length(imported, moving_scene):
    add("truck", use_amount=True, amount=0.5)
    bpy.context.scene.frame_end = 15  # the first half of the move
    bpy.ops.ex4d.save_move(asset_name="side")
    bpy.context.scene.frame_end = 19
    other = import_scene(moving_scene, ImportSettings(frame_start=11))
    bpy.context.view_layer.objects.active = other
    bpy.ops.ex4d.add_asset_camera(action="side")
    package = Scene.open(moving_scene)
    path = sample_camera(active_shot(bpy.context.scene).camera, other, 11, 19)
    source, distance = package.source_camera(), package.manifest.pivot_distance
    np.testing.assert_allclose(path.world_to_camera[0], source.world_to_camera[0], atol=1e-5)
    end = source.world_to_camera[0] @ path.camera_to_world[-1]
    np.testing.assert_allclose(end[:3, 3], (0.25 * distance, 0.0, 0.0), atol=1e-4)


def test_moves_can_be_saved_into_an_asset_library(imported, tmp_path):
    libraries = bpy.context.preferences.filepaths.asset_libraries
    library = libraries.new(name="moves", directory=str(tmp_path / "library"))
    try:
        add("truck")
        assert EX4D_OT_save_move.poll(bpy.context)
        for _ in range(2):
            bpy.ops.ex4d.save_move(asset_name="my move", library="moves")
        assert "my move" not in bpy.data.actions
        files = sorted((tmp_path / "library").iterdir())
        assert [file.name for file in files] == ["my_move.blend", "my_move_2.blend"]
        with bpy.data.libraries.load(str(files[0]), assets_only=True) as (found, wanted):
            wanted.actions = found.actions
        assert is_move(wanted.actions[0])
    finally:
        libraries.remove(library)


def test_other_actions_are_refused(imported):
    add("truck")
    bpy.data.actions.new("walk")
    for name, said in (("walk", "is no camera move"), ("gone", "has no action 'gone'"), ("", "no action asset")):
        with pytest.raises(RuntimeError, match=said):
            bpy.ops.ex4d.add_asset_camera(action=name)


@pytest.mark.parametrize("menu", ["VIEW3D_MT_camera_add", "VIEW3D_MT_view_cameras", "ASSETBROWSER_MT_context_menu"])
def test_blenders_own_menus_have_our_operators(menu):
    draws = getattr(bpy.types, menu).draw._draw_funcs
    assert any(Path(draw.__code__.co_filename).name == "menus.py" for draw in draws)
