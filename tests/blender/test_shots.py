"""Several shots a scene, and the ways to a camera for them: presets, the viewport's view, saved moves."""

from __future__ import annotations

from pathlib import Path

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.presets import reversed_move
from blender_addon.cameras.sampling import sample_camera
from blender_addon.cameras.saved_moves import PRESET_FOLDER, read_preset
from blender_addon.cameras.viewport_moves import camera_to_view
from blender_addon.scenes.importing import import_scene
from blender_addon.shots.camera_mismatch import camera_mismatch
from blender_addon.shots.properties import active_shot
from ex4d_core.blender_cameras import world_to_camera_from_blender
from ex4d_core.errors import RequestError
from ex4d_core.trajectories import PRESETS, Trajectory


@pytest.fixture
def imported(card_scene) -> bpy.types.Object:
    return import_scene(card_scene)


def labels() -> list[str]:
    return [shot.label for shot in bpy.context.scene.ex4d_shots]


def test_before_there_is_a_list_there_is_a_shot_all_the_same():
    shot = active_shot(bpy.context.scene)
    shot.holes = "mark"
    assert not labels() and bpy.context.scene.ex4d_shot.holes == "mark"


def test_a_camera_move_makes_the_first_shot_of_what_was_set_up(imported):
    active_shot(bpy.context.scene).holes = "mark"
    bpy.ops.ex4d.add_camera(preset="orbit")
    shot = active_shot(bpy.context.scene)
    assert (labels(), shot.holes, shot.camera.name) == (["orbit"], "mark", "Camera orbit")
    assert bpy.context.scene.camera == shot.camera


def test_each_move_is_a_shot_of_its_own_unless_it_replaces_a_camera(imported):
    bpy.ops.ex4d.add_camera(preset="orbit")
    bpy.ops.ex4d.add_camera(preset="truck")
    assert labels() == ["orbit", "truck"] and active_shot(bpy.context.scene).camera.name == "Camera truck"
    bpy.ops.ex4d.add_camera(preset="crane", replace=True)
    assert labels() == ["orbit", "crane"], "the shot's name follows its camera"
    assert active_shot(bpy.context.scene).camera.name == "Camera crane"
    bpy.ops.ex4d.add_camera(preset="pedestal")
    assert labels() == ["orbit", "crane", "pedestal"], "a replacement is not remembered"


def test_a_shot_is_called_as_the_menu_calls_its_move(imported):
    bpy.ops.ex4d.add_camera(preset="30")
    bpy.ops.ex4d.add_camera(preset="dolly_zoom")
    assert labels() == ["arc 30", "dolly zoom"]


def test_picking_a_shot_looks_through_its_camera(imported):
    bpy.ops.ex4d.add_camera(preset="orbit")
    bpy.ops.ex4d.add_camera(preset="truck")
    scene = bpy.context.scene
    scene.ex4d_shot_index = 0
    assert scene.camera.name == "Camera orbit"
    scene.ex4d_shot_index = 1
    assert scene.camera.name == "Camera truck"


def test_shots_are_added_duplicated_moved_and_removed(imported):
    bpy.ops.ex4d.add_camera(preset="orbit")
    active_shot(bpy.context.scene).use_range = True
    bpy.ops.ex4d.duplicate_shot()
    assert labels() == ["orbit", "orbit 2"] and active_shot(bpy.context.scene).use_range
    bpy.ops.ex4d.move_shot(direction="UP")
    assert labels() == ["orbit 2", "orbit"] and active_shot(bpy.context.scene).label == "orbit 2"
    assert bpy.ops.ex4d.move_shot(direction="UP") == {"CANCELLED"}
    bpy.ops.ex4d.remove_shot()
    assert labels() == ["orbit"] and active_shot(bpy.context.scene).label == "orbit"
    bpy.ops.ex4d.remove_shot()
    with pytest.raises(RuntimeError, match="No shots in this scene"):
        bpy.ops.ex4d.remove_shot()


def test_a_selected_camera_becomes_the_new_shots(imported):
    bpy.context.view_layer.objects.active = imported.ex4d_scene.source_camera
    bpy.ops.ex4d.add_shot()
    assert active_shot(bpy.context.scene).camera == imported.ex4d_scene.source_camera


def test_a_deleted_camera_is_named_with_the_one_that_takes_use_instead(imported):
    bpy.ops.ex4d.add_camera(preset="orbit")
    assert camera_mismatch(bpy.context) is None
    bpy.context.scene.camera = imported.ex4d_scene.source_camera
    bpy.ops.object.select_all(action="DESELECT")
    bpy.data.objects["Camera orbit"].select_set(True)
    bpy.ops.object.delete()
    instead = imported.ex4d_scene.source_camera.name
    assert (
        camera_mismatch(bpy.context).text == f"Camera orbit is not in this scene; takes use the active camera {instead}"
    )
    bpy.context.scene.camera = None
    assert camera_mismatch(bpy.context).text == "Camera orbit is not in this scene; choose another camera"


def test_shots_are_kept_in_the_file(imported, tmp_path):
    bpy.ops.ex4d.add_camera(preset="orbit")
    bpy.ops.ex4d.add_camera(preset="truck")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shots.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shots.blend"))
    assert len(labels()) == 2 and active_shot(bpy.context.scene).camera.name == "Camera truck"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_move_has_another_way(preset):
    there, back = Trajectory(preset), reversed_move(Trajectory(preset))
    assert back != there
    again = reversed_move(back)
    assert (float(again.preset), again.amount) == (float(preset), None) if preset.isdigit() else again.preset == preset


def test_the_other_way_is_the_mirror_image(imported):
    ends = []
    for other_way in (False, True):
        bpy.ops.ex4d.add_camera(preset="orbit", other_way=other_way)
        path = sample_camera(active_shot(bpy.context.scene).camera, imported, 1, 9)
        ends.append(np.linalg.inv(path.world_to_camera[-1])[:3, 3])
    np.testing.assert_allclose(ends[0] * [-1, 1, 1], ends[1], atol=1e-5)
    assert ends[0][0] > 0.1  # to the right first


def test_a_move_ends_at_the_viewports_view(imported):
    view = mathutils.Matrix.LocRotScale((1.0, 0.5, 0.3), mathutils.Euler((1.4, 0.0, 0.4)), None)
    camera = camera_to_view(imported, view)
    path = sample_camera(camera, imported, 1, 9)
    expected = world_to_camera_from_blender(np.array(view)[None], np.array(imported.matrix_world))[0]
    np.testing.assert_allclose(path.world_to_camera[-1], expected, atol=1e-5)
    np.testing.assert_allclose(path.world_to_camera[0], np.eye(4), atol=1e-5)
    np.testing.assert_allclose(path.intrinsics[-1], path.intrinsics[0])


def test_outside_a_viewport_the_move_to_its_view_is_greyed_out_with_the_reason(imported):
    with pytest.raises(RuntimeError, match="Use this in a 3D viewport"):
        bpy.ops.ex4d.camera_to_view()


def test_a_move_saved_as_blenders_preset_is_read_back(imported, tmp_path):
    preset = tmp_path / "my_arc.py"
    preset.write_text(
        "import bpy\nop = bpy.context.active_operator\n\nop.preset = 'orbit'\nop.use_amount = True\n"
        "op.amount = -20.0\nop.elevation = 5.0\nop.from_the_future = 3\n"
    )
    assert bpy.ops.ex4d.add_saved_camera(filepath=str(preset)) == {"FINISHED"}
    path = sample_camera(active_shot(bpy.context.scene).camera, imported, 1, 9)
    assert np.linalg.inv(path.world_to_camera[-1])[0, 3] < -0.1


@pytest.mark.parametrize("text", ["op.preset = open('x')", "op.preset ="])
def test_a_preset_is_read_and_never_run(tmp_path, text):
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(RequestError, match=r"odd\.py"):
        read_preset(path, {"preset"})


def test_blenders_own_tool_saves_moves_where_the_menu_looks():
    # Blender's "Operator Presets" menu keeps an operator's presets under this folder.
    assert Path(PRESET_FOLDER).parts == ("operator", "ex4d.add_camera")
    assert "PRESET" in bpy.types.EX4D_OT_add_camera.bl_options
