"""The lens of the footage: degrees, or millimeters with the sensor; an assumed one is said and can be set later."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import bpy
import pytest

from blender_addon.footage.lens import lens_text, record_of
from blender_addon.footage.sources import plan_from_text, plan_of
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.link import is_assumed

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


@pytest.fixture
def footage(tmp_path) -> bpy.types.PropertyGroup:
    """The sample clip, chosen in a saved file."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    settings = bpy.context.scene.ex4d_footage
    settings.footage, settings.depth = str(SAMPLE / "footage.mp4"), str(SAMPLE / "depth.npz")
    return settings


def sent(settings: bpy.types.PropertyGroup) -> tuple[float | None, float | None, float]:
    plan = plan_of(settings, bpy.context.scene).settings
    return plan.fov_degrees, plan.focal_mm, plan.sensor_mm


def test_the_lens_is_sent_as_the_artist_gives_it(footage):
    assert sent(footage) == (None, None, 36.0)
    footage.use_fov, footage.fov = True, math.radians(60.0)
    assert sent(footage) == (pytest.approx(60.0), None, 36.0)
    footage.lens_unit, footage.focal_mm, footage.sensor_mm = "MILLIMETERS", 23.7, 23.5
    assert sent(footage) == (None, 23.7, 23.5)


def test_the_panel_says_which_lens_it_will_be(footage):
    assert "50°" in lens_text(footage) and "assumed" in lens_text(footage)
    footage.camera = "//camera.npz"
    assert "camera file" in lens_text(footage)
    footage.use_fov, footage.fov = True, math.radians(60.0)
    assert "60.0°" in lens_text(footage)
    footage.lens_unit, footage.focal_mm, footage.sensor_mm = "MILLIMETERS", 23.7, 23.5
    assert "23.7 mm on 23.5 mm" in lens_text(footage)


def test_a_scene_with_an_assumed_lens_says_so(card_scene, tmp_path):
    from ex4d_core.scene import Scene

    folder = Path(shutil.copytree(card_scene, tmp_path / "assumed"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provenance"] = {"focal length": "an assumed field of view of 50 degrees, since no file states it"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Scene.open(folder).manifest.provenance
    assert is_assumed(import_scene(folder).ex4d_scene.lens_origin)
    assert not is_assumed(import_scene(card_scene).ex4d_scene.lens_origin)


def test_setting_the_lens_reconstructs_the_same_footage_again(footage, card_scene):
    assert bpy.ops.ex4d.reconstruct() == {"FINISHED"}
    first = bpy.context.scene.ex4d_reconstructions[0]
    imported = import_scene(card_scene)
    assert record_of(imported) is None and not bpy.ops.ex4d.set_lens.poll(), "it came from elsewhere"
    imported.ex4d_scene.folder = first.folder
    assert bpy.ops.ex4d.set_lens(lens_unit="MILLIMETERS", focal_mm=50.0, sensor_mm=24.0) == {"FINISHED"}
    old, new = (plan_from_text(one.plan) for one in bpy.context.scene.ex4d_reconstructions)
    assert (new.settings.focal_mm, new.settings.sensor_mm, new.settings.fov_degrees) == (50.0, 24.0, None)
    assert (new.footage, new.depth_files, new.settings.depth) == (old.footage, old.depth_files, old.settings.depth)
