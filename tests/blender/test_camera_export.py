"""The camera of a shot goes out by Blender's exporters and comes back as it was: Alembic, USD and FBX."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.scenes.importing import ImportSettings, import_scene
from ex4d_core.trajectories import Trajectory

START, END = 11, 19
# FBX stores positions in single precision and centimetres.
EXACT = {"abc": 1e-5, "usdc": 1e-5, "fbx": 1e-4}


def write(path: str) -> None:
    if path.endswith(".abc"):
        # As a job, the export would run after the test.
        bpy.ops.wm.alembic_export(filepath=path, selected=True, start=START, end=END, as_background_job=False)
    elif path.endswith(".usdc"):
        bpy.ops.wm.usd_export(filepath=path, selected_objects_only=True, export_animation=True)
    else:
        bpy.ops.export_scene.fbx(
            filepath=path,
            use_selection=True,
            object_types={"CAMERA"},
            bake_anim_use_nla_strips=False,
            bake_anim_use_all_actions=False,
            bake_anim_simplify_factor=0,
        )


def read(path: str) -> None:
    if path.endswith(".abc"):
        bpy.ops.wm.alembic_import(filepath=path, as_background_job=False, set_frame_range=False)
    elif path.endswith(".usdc"):
        bpy.ops.wm.usd_import(filepath=path, set_frame_range=False)
    else:
        bpy.ops.import_scene.fbx(filepath=path, anim_offset=0)  # its default moves keys by a frame


@pytest.mark.parametrize("ending", EXACT)
def test_a_camera_comes_back_from_another_programs_format(card_scene, tmp_path, ending):
    if ending == "fbx":
        addon = pytest.importorskip("addon_utils")
        addon.enable("io_scene_fbx", default_set=False)
        if not hasattr(bpy.types, "EXPORT_SCENE_OT_fbx"):
            pytest.skip("this Blender has no FBX exporter")
    scene = import_scene(card_scene, ImportSettings(frame_start=START))
    camera = camera_from_preset(scene, Trajectory("orbit", amount=40.0), name="orbit")
    context = bpy.context
    context.scene.frame_start, context.scene.frame_end = START, END
    expected = sample_camera(camera, scene, START, END)
    for one in context.scene.objects:
        one.select_set(one == camera)
    path = str(tmp_path / f"camera.{ending}")
    write(path)
    known = set(bpy.data.objects)
    read(path)
    back = next(one for one in bpy.data.objects if one not in known and one.type == "CAMERA")
    found = sample_camera(back, scene, START, END)
    assert np.abs(found.world_to_camera - expected.world_to_camera).max() < EXACT[ending]
    assert np.abs(found.intrinsics / found.width - expected.intrinsics / expected.width).max() < 1e-4
