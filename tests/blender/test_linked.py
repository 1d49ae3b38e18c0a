"""A scene that another file has imported: linked, overridden, or shown in several Blender scenes."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.link import is_scene_object, open_scene
from ex4d_core.trajectories import Trajectory

from .conftest import fresh_blender, linked_into_another_file, tick_round
from .taking import is_followed, send, strip_of, take, tick_until_over


@pytest.fixture
def linked(card_scene: Path, tmp_path: Path) -> bpy.types.Object:
    """The card's scene, linked from set/set.blend into work/work.blend; "//" is another folder in each."""
    shutil.copytree(card_scene, tmp_path / "set" / "scenes" / "card")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "set" / "set.blend"))
    imported = import_scene(tmp_path / "set" / "scenes" / "card", ImportSettings(frame_start=11))
    collection = imported.users_collection[0].name
    assert imported.ex4d_scene.folder == "//scenes/card"
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    (tmp_path / "work").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "work" / "work.blend"))
    with bpy.data.libraries.load(str(tmp_path / "set" / "set.blend"), link=True, relative=True) as (_, wanted):
        wanted.collections = [collection]
    bpy.context.scene.collection.children.link(bpy.data.collections[collection])
    set_up_format()
    return shown_scene()


def set_up_format() -> None:
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 11, 19
    scene.render.resolution_x, scene.render.resolution_y = 48, 32


def shown_scene() -> bpy.types.Object:
    """The imported scene in the current Blender scene, its override if there is one, as the active object."""
    found = max(filter(is_scene_object, bpy.context.scene.objects), key=lambda one: one.override_library is not None)
    bpy.context.view_layer.objects.active = found
    return found


def address_of(backend) -> None:
    bpy.context.preferences.addons["blender_addon"].preferences.address = backend.address


def test_a_linked_scene_can_be_shot(backend, linked, tmp_path):
    address_of(backend)
    assert linked.library is not None
    assert bpy.ops.ex4d.add_camera(preset="30") == {"FINISHED"}
    camera = bpy.context.scene.camera
    assert camera.library is None and camera.parent == linked
    send()
    tick_until_over()
    assert (take().state, take().reason, strip_of(take()).type) == ("done", "", "MOVIE")
    assert (tmp_path / "work" / "takes").is_dir()

    # Saved elsewhere, the file still finds what is linked.
    (tmp_path / "deep" / "er").mkdir(parents=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "deep" / "er" / "work.blend"))
    assert shown_scene().ex4d_scene.folder == "//scenes/card"
    assert open_scene(shown_scene()).path("positions").parent == tmp_path / "set" / "scenes" / "card"


def test_a_linked_scene_is_moved_in_its_own_file_or_by_an_override(linked):
    with pytest.raises(RuntimeError, match="is linked from another file; move it there, or make a library override"):
        bpy.ops.ex4d.set_scale(factor=2.0)
    assert linked.matrix_world.to_scale().x == pytest.approx(1.0)


def test_an_overridden_scene_can_be_shot_and_moved(backend, linked, tmp_path):
    address_of(backend)
    linked.users_collection[0].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    overridden = shown_scene()
    assert overridden.override_library is not None
    assert bpy.ops.ex4d.add_camera(preset="30") == {"FINISHED"}
    assert bpy.ops.ex4d.set_scale(factor=2.0) == {"FINISHED"}
    send()
    tick_until_over()
    assert (take().state, take().reason) == ("done", "")

    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.revert_mainfile()
    assert open_scene(shown_scene()).path("positions").parent == tmp_path / "set" / "scenes" / "card"
    assert shown_scene().matrix_world.to_scale().x == pytest.approx(2.0)
    assert bpy.ops.ex4d.restore_take(key=take().key) == {"FINISHED"}


def test_a_linked_blender_scene_keeps_no_takes_and_no_reconstructions(shot, tmp_path):
    entry = bpy.context.scene.ex4d_reconstructions.add()
    entry.key, entry.job, entry.state = "key", "job", "running"
    there = linked_into_another_file(tmp_path / "shot.blend")
    tick_round()
    assert len(there.ex4d_reconstructions) == 1 and not is_followed(there.ex4d_reconstructions[0])
    bpy.context.window.scene = there
    with pytest.raises(RuntimeError, match="is linked from another file; send takes from a scene of this file"):
        bpy.ops.ex4d.send_take()
    assert not there.ex4d_takes


def test_a_camera_is_put_where_the_current_blender_scene_sees_it(card_scene):
    imported = import_scene(card_scene, ImportSettings(frame_start=11))
    second = bpy.data.scenes.new("second")
    second.collection.objects.link(imported)
    bpy.context.window.scene = second
    set_up_format()
    camera = camera_from_preset(imported, Trajectory("truck"))
    assert camera.name in second.objects
