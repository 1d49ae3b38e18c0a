"""Takes go to an edit scene, so that the working scene renders what it rendered before."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.sequencer.edit_scenes import edit_scene_of, has_pictures, scenes_with_take
from blender_addon.sequencer.strip_api import all_strips_in, end_of, start_of, strips_in
from blender_addon.sequencer.strips import SHOT_KEY, TakeStrip, grow_image_strip, strips_of

from .strip_files import TAKE, add_title

PINS = "sequencer_scene" in bpy.types.WorkSpace.bl_rna.properties
needs_pins = pytest.mark.skipif(not PINS, reason="before Blender 5.0 the sequencer shows the window's scene")


@pytest.fixture
def working() -> bpy.types.Scene:
    """A scene that Cycles renders as the world's dark gray; on its frame takes are white."""
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 32, 24, 25
    scene.render.fps, scene.render.fps_base = 30, 1.001
    scene.frame_start, scene.frame_end, scene.frame_current = 11, 19, 19
    scene.view_settings.view_transform = "Standard"
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    scene.world = bpy.data.worlds.new("gray")
    return scene


def rendered(scene: bpy.types.Scene, path: str) -> np.ndarray:
    """(H*W, 3) what F12 makes of the scene's current frame."""
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(path, check_existing=False)
    pixels = np.array(image.pixels[:]).reshape(-1, 4)[:, :3]
    bpy.data.images.remove(image)
    return pixels


def test_a_take_changes_nothing_that_the_working_scene_renders(working, images, tmp_path):
    before = rendered(working, str(tmp_path / "before.png"))
    grow_image_strip(edit_scene_of(working), TAKE, images)
    np.testing.assert_allclose(rendered(working, str(tmp_path / "after.png")), before, atol=0.01)
    assert before.max() < 0.5 and not has_pictures(working)


def test_the_edit_scene_has_the_working_scenes_rate_and_size(working):
    edit = edit_scene_of(working)
    assert (edit.name, edit.render.fps, edit.render.fps_base) == ("EX-4D Edit", 30, pytest.approx(1.001))
    assert (edit.render.resolution_x, edit.render.resolution_y, edit.render.resolution_percentage) == (8, 6, 100)
    assert (edit.frame_start, edit.frame_end, edit.frame_current) == (11, 19, 19)
    assert edit.view_settings.view_transform == "Standard", "takes look as they are in their files"
    assert edit_scene_of(working) == edit == working.ex4d_edit_scene and len(bpy.data.scenes) == 2


def test_an_edit_scene_that_was_deleted_is_made_again(working):
    bpy.data.scenes.remove(edit_scene_of(working))
    assert edit_scene_of(working).name == "EX-4D Edit"


@needs_pins
def test_the_edit_scene_is_pinned_where_the_artist_looks(working):
    edit = edit_scene_of(working)
    assert bpy.context.workspace.sequencer_scene == edit
    others = [one for one in bpy.data.workspaces if one != bpy.context.workspace]
    with_sequencer = [
        one for one in others if any(area.type == "SEQUENCE_EDITOR" for screen in one.screens for area in screen.areas)
    ]
    assert all(one.sequencer_scene == edit for one in with_sequencer)
    assert all(one.sequencer_scene is None for one in others if one not in with_sequencer)


@needs_pins
def test_takes_go_to_the_edit_scene_that_the_artist_has_pinned(working):
    cut = bpy.data.scenes.new("her cut")
    bpy.context.workspace.sequencer_scene = cut
    assert edit_scene_of(working) == cut and bpy.context.workspace.sequencer_scene == cut
    assert len(bpy.data.scenes) == 2


@needs_pins
@pytest.mark.parametrize("has_strips", [False, True])
def test_the_working_scene_is_no_edit_scene_also_where_it_is_pinned(working, has_strips):
    bpy.context.workspace.sequencer_scene = working
    if has_strips:
        add_title(working, 1, 1, 50)
    edit = edit_scene_of(working)
    assert edit != working
    assert bpy.context.workspace.sequencer_scene == (working if has_strips else edit), "what she edits stays in view"


@needs_pins
def test_a_scene_that_renders_its_camera_is_no_edit_scene(working):
    other = bpy.data.scenes.new("another working scene")
    other.camera = working.camera
    bpy.context.workspace.sequencer_scene = other
    assert edit_scene_of(working) != other


def test_strips_of_an_earlier_version_stay_in_the_working_scene(working, images):
    strip = grow_image_strip(working, TAKE, {0: images[0]})
    assert scenes_with_take(TAKE.key) == [working]
    grow_image_strip(working, TAKE, images)
    assert (start_of(strip), end_of(strip)) == (11, 20)
    assert edit_scene_of(working) != working, "but new takes go elsewhere"


def version(number: int, **changes: object) -> TakeStrip:
    fields = {"key": f"k{number}", "label": f"arc v{number}", "frame_start": 11, "frames": 9, "request": {}}
    return TakeStrip(**{**fields, "shot": "s", "shot_label": "arc", **changes})


def test_the_versions_of_a_shot_share_a_meta_strip_on_one_channel(working, images):
    edit = edit_scene_of(working)
    for number in (1, 2, 3):
        grow_image_strip(edit, version(number), images)
    (meta,) = strips_of(edit)
    assert (meta.name, meta.type, meta.channel, start_of(meta), end_of(meta)) == ("arc", "META", 1, 11, 20)
    assert [(one.name, one.channel) for one in strips_in(meta)] == [("arc v1", 1), ("arc v2", 2), ("arc v3", 3)]
    assert not any(one.select for one in all_strips_in(edit.sequence_editor))


def test_a_version_starts_with_the_others_where_the_artist_has_moved_their_meta_strip(working, images):
    edit = edit_scene_of(working)
    grow_image_strip(edit, version(1), images)
    (meta,) = strips_of(edit)
    setattr(meta, "content_start" if bpy.app.version >= (5, 2, 0) else "frame_start", 101)
    longer = grow_image_strip(edit, version(2, frame_start=13, frames=7), {i: images[i] for i in range(7)})
    assert (start_of(longer), end_of(longer)) == (103, 110)
    assert (start_of(meta), end_of(meta)) == (101, 110)


def test_takes_land_above_what_is_visible_and_not_on_locked_or_muted_channels(working, images):
    edit = edit_scene_of(working)
    add_title(edit, 2, 1, 50)
    add_title(edit, 6, 1, 50).mute = True
    edit.sequence_editor.channels[3].lock = True
    edit.sequence_editor.channels[4].mute = True
    grow_image_strip(edit, version(1), images)
    meta = next(one for one in strips_of(edit) if one.get(SHOT_KEY) == "s")
    assert meta.channel == 5


def test_a_meta_strip_that_the_artist_trimmed_stays_as_it_is(working, images):
    edit = edit_scene_of(working)
    grow_image_strip(edit, version(1), {i: images[i] for i in range(5)})
    (meta,) = strips_of(edit)
    setattr(meta, "right_handle" if bpy.app.version >= (5, 2, 0) else "frame_final_end", 14)
    strip = grow_image_strip(edit, version(1), images)
    assert (end_of(strip), end_of(meta)) == (20, 14)
