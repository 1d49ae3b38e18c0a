"""A new file is set up for the footage; in any other the artist is asked, and undo brings everything back."""

from __future__ import annotations

from types import SimpleNamespace

import addon_utils  # comes with bpy
import bpy
import pytest

from blender_addon.scenes import matching, viewports
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.link import link_of, scene_objects
from blender_addon.scenes.matching import differences
from blender_addon.scenes.new_file import is_new_file

from .conftest import tick_round


def settings() -> tuple[object, ...]:
    """All that an import may set in a Blender scene."""
    scene, render = bpy.context.scene, bpy.context.scene.render
    return (
        *(render.fps, render.resolution_x, render.resolution_y, render.resolution_percentage),
        *(scene.frame_start, scene.frame_end, scene.view_settings.view_transform),
        scene.camera.name if scene.camera else "",
    )


def as_blender_starts() -> bpy.types.Scene:
    """The factory file, with cube, light and camera."""
    bpy.ops.wm.read_factory_settings(use_empty=False)
    assert addon_utils.enable("blender_addon", default_set=True) is not None
    return bpy.context.scene


@pytest.fixture
def work() -> bpy.types.Scene:
    """A file that the artist has worked in: half size, 30 fps, a monkey."""
    scene = as_blender_starts()
    bpy.ops.mesh.primitive_monkey_add()
    scene.render.fps, scene.render.resolution_percentage, scene.frame_end = 30, 50, 400
    return scene


@pytest.fixture
def viewport(monkeypatch) -> SimpleNamespace:
    """The shading of an open 3D viewport, which bpy as a module has none of."""
    shading = SimpleNamespace(type="SOLID", light="STUDIO", color_type="MATERIAL")
    view = SimpleNamespace(view_perspective="PERSP")
    space = SimpleNamespace(shading=shading, region_3d=view, as_pointer=lambda: 1)
    screen = SimpleNamespace(name="Layout", session_uid=1)
    for module in (matching, viewports):
        monkeypatch.setattr(module, "all_viewports", lambda: [(screen, 0, space)])
    shading.view = view
    return shading


@pytest.mark.parametrize("empty", [True, False])
def test_a_new_file_is_set_up_for_the_footage(card_scene, viewport, empty):
    if not empty:
        as_blender_starts()
    assert is_new_file(bpy.context.scene)
    imported = import_scene(card_scene)
    assert settings() == (24, 48, 32, 100, 1, 9, "Standard", "card and wall source")
    assert (viewport.light, viewport.color_type) == ("FLAT", "TEXTURE")
    assert viewport.view.view_perspective == "CAMERA" and bpy.context.scene.ex4d_viewports
    assert not differences(bpy.context.scene, imported) and link_of(imported).match == "DONE"


def move(name: str) -> None:
    bpy.data.objects[name].location.x += 0.1


CHANGES = {
    "an object": lambda: bpy.ops.mesh.primitive_monkey_add(),
    "cube": lambda: move("Cube"),
    "camera": lambda: move("Camera"),
    "light": lambda: setattr(bpy.data.lights["Light"], "energy", 10.0),
    "vertex": lambda: setattr(bpy.data.meshes["Cube"].vertices[0].co, "x", 2.0),
    "modifier": lambda: bpy.data.objects["Cube"].modifiers.new("bevel", "BEVEL"),
    "rate": lambda: setattr(bpy.context.scene.render, "fps", 25),
    "size": lambda: setattr(bpy.context.scene.render, "resolution_x", 1280),
    "percentage": lambda: setattr(bpy.context.scene.render, "resolution_percentage", 50),
    "range": lambda: setattr(bpy.context.scene, "frame_end", 100),
    "view": lambda: setattr(bpy.context.scene.view_settings, "view_transform", "Filmic"),
    "marker": lambda: bpy.context.scene.timeline_markers.new("beat"),
    "keys": lambda: bpy.data.objects["Cube"].keyframe_insert("location"),
    "scene": lambda: bpy.data.scenes.new("second"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_that_the_artist_has_done_makes_it_her_file(card_scene, viewport, change):
    as_blender_starts()
    CHANGES[change]()
    before = settings()
    imported = import_scene(card_scene)
    assert settings() == before and (viewport.light, viewport.color_type) == ("STUDIO", "MATERIAL")
    assert viewport.view.view_perspective == "PERSP"
    assert link_of(imported).match == "ASK"


def test_her_own_start_up_file_is_a_new_file_too(card_scene, tmp_path, monkeypatch):
    """Saved with 25 fps; it opens without a name."""
    from blender_addon.scenes import new_file

    scene = as_blender_starts()
    scene.render.fps = 25
    assert not is_new_file(scene)
    new_file._after_load()  # as when it opens
    assert is_new_file(scene)
    scene.render.fps = 30
    assert not is_new_file(scene)


def test_in_her_own_file_the_differences_are_listed_and_taken_as_she_chooses(card_scene, work, viewport):
    before = settings()
    imported = import_scene(card_scene)
    assert settings() == before
    assert [str(one) for one in differences(work, imported)] == [
        "Frame Rate: 30 → 24",
        "Resolution: 1920x1080 (50%) → 48x32",
        "Frame Range: 1–400 → 1–9",
        "Active Camera: Camera → card and wall source",
        "View Transform: AgX → Standard",
        "Viewports: own → textured, through the camera",
    ]
    assert bpy.ops.ex4d.match_footage(frame_range=False, view_transform=False) == {"FINISHED"}
    assert settings() == (24, 48, 32, 100, 1, 400, "AgX", "card and wall source")
    assert viewport.light == "STUDIO", "viewports are only changed where she ticks it"
    assert link_of(imported).match == "DONE"


def test_keep_leaves_everything_and_does_not_ask_again(card_scene, work):
    before = settings()
    imported = import_scene(card_scene)
    assert bpy.ops.ex4d.keep_settings() == {"FINISHED"}
    assert settings() == before and link_of(imported).match == "KEPT"


def test_undo_brings_settings_and_shading_back(card_scene, work, viewport):
    before = settings()
    import_scene(card_scene)
    bpy.ops.ed.undo_push(message="Import EX-4D Scene")
    bpy.ops.ex4d.match_footage("EXEC_DEFAULT", True, viewports=True)
    assert settings()[0] == 24 and viewport.light == "FLAT"
    bpy.ops.ed.undo()
    tick_round()
    assert settings() == before and (viewport.light, viewport.color_type) == ("STUDIO", "MATERIAL")
    assert link_of(scene_objects()[0]).match == "ASK"


def test_undo_of_an_import_brings_the_new_file_back(card_scene, viewport):
    as_blender_starts()
    bpy.ops.ed.undo_push(message="Original")
    before = settings()
    import_scene(card_scene)
    bpy.ops.ed.undo_push(message="Import EX-4D Scene")
    bpy.ops.ed.undo()
    tick_round()
    assert settings() == before and not scene_objects() and viewport.light == "STUDIO"
