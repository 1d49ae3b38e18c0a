"""Scenes and takes lie in a folder that the artist chose, never in the extension's; they move and are deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import addon_utils  # comes with bpy
import bpy
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.jobs.tracker import tracker
from blender_addon.paths import from_blend
from blender_addon.projects import folders as folders_module
from blender_addon.projects import operators
from blender_addon.projects.asking import must_ask
from blender_addon.projects.contents import folders_to_move
from blender_addon.projects.deletion import EX4D_OT_delete_take_files
from blender_addon.projects.disk import files_of
from blender_addon.projects.folders import (
    choose_project_folder,
    chosen_project_folder,
    documents_folder,
    project_folder,
)
from blender_addon.projects.operators import former_work, look_for_former_work
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.link import open_scene, scene_objects
from blender_addon.sequencer.strip_api import all_strips_in
from blender_addon.sequencer.strips import find_strip
from blender_addon.takes.requests import load_request, package_of
from ex4d_core.trajectories import Trajectory

from .conftest import fresh_blender, tick_round, tick_until
from .taking import is_followed, send, strip_of, take, tick_until_over


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons["blender_addon"].preferences


@pytest.fixture
def project(tmp_path) -> Path:
    """The project folder that the artist chose for unsaved files."""
    return tmp_path / "unsaved takes"


@pytest.fixture
def unsaved(card_scene, project) -> bpy.types.Object:
    """An unsaved file with a scene in the project folder, and a shot of it."""
    imported = import_scene(shutil.copytree(card_scene, project / "scenes" / "card_1"))
    camera_from_preset(imported, Trajectory("30"), name="arc")
    bpy.context.scene.ex4d_shot.camera, bpy.context.scene.ex4d_shot.label = bpy.data.objects["arc"], "arc"
    bpy.context.scene.ex4d_shot.scene_object = imported
    return imported


def paths_in_file() -> list[str]:
    """Every path of the open file that lies in a scene or take."""
    scene = bpy.context.scene
    strips = all_strips_in(scene.sequence_editor)
    found = [one.folder for one in scene.ex4d_takes]
    found += [one.filepath if one.type == "MOVIE" else one.directory for one in strips]
    found += [one.filepath for one in bpy.data.images if one.filepath]
    for one in scene_objects():
        found += [one.ex4d_scene.folder, one.modifiers["EX-4D Positions"].filepath]
    return found


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_work_of_unsaved_files_never_lies_in_the_folder_that_blender_deletes_with_the_extension(monkeypatch, tmp_path):
    preferences().output_folder = ""
    monkeypatch.setattr(folders_module, "ADDON_PACKAGE", "bl_ext.user_default.ex4d")
    extension = tmp_path / "extension"
    monkeypatch.setattr(bpy.utils, "extension_path_user", lambda package, path="", create=False: str(extension / path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Documents").mkdir()
    assert project_folder() == tmp_path / "Documents" / "EX-4D"
    assert not project_folder().is_relative_to(extension)


def test_documents_are_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert documents_folder() == tmp_path, "without any"
    (tmp_path / "Documenti").mkdir()
    config = Path(os.environ["XDG_CONFIG_HOME"])
    config.mkdir(exist_ok=True)
    (config / "user-dirs.dirs").write_text('# made by a tool\nXDG_DOCUMENTS_DIR="$HOME/Documenti"\n')
    assert documents_folder() == tmp_path / "Documenti"


def test_the_artist_is_asked_once_and_the_answer_outlives_the_extension(tmp_path):
    preferences().output_folder = ""
    assert must_ask()
    choose_project_folder(tmp_path / "films")
    assert not must_ask() and (tmp_path / "films").is_dir()
    addon_utils.disable("blender_addon", default_set=True)  # with its preferences, as uninstalling does
    fresh_blender()
    assert preferences().output_folder == "" and chosen_project_folder() == tmp_path / "films"
    preferences().output_folder = ""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    assert not must_ask(), "a saved file has a folder"


@pytest.mark.parametrize("operator", ["reconstruct", "send_take", "send_final"])
def test_whatever_makes_files_asks_for_the_folder(operator):
    kind = getattr(bpy.types, f"EX4D_OT_{operator}")
    preferences().output_folder = ""
    asked = []
    window_manager = SimpleNamespace(invoke_props_dialog=lambda one, **_: asked.append(one) or {"RUNNING_MODAL"})
    pressed = SimpleNamespace(project_folder="", bl_label=kind.bl_label, execute=lambda context: {"FINISHED"})
    assert kind.invoke(pressed, SimpleNamespace(window_manager=window_manager), None) == {"RUNNING_MODAL"}
    assert asked == [pressed] and pressed.project_folder == str(project_folder())


def test_after_the_first_save_scenes_and_takes_move_beside_the_file(connected, unsaved, project, tmp_path):
    send()
    tick_until_over()
    assert from_blend(take().folder) == project / "takes" / "arc_1"
    before = files_below(project)
    blend = tmp_path / "film" / "film.blend"
    blend.parent.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    assert {one.folder for one in folders_to_move()} == {project / "takes" / "arc_1", project / "scenes" / "card_1"}
    assert take().folder.startswith("//"), "relative from the first save on, as Blender's own paths are"

    assert bpy.ops.ex4d.move_into_project() == {"FINISHED"}
    assert files_below(blend.parent) - {"film.blend", "film.blend1"} == before and not files_below(project)
    assert not folders_to_move()
    assert all(path.startswith(("//takes/arc_1", "//scenes/card_1")) for path in paths_in_file()), paths_in_file()
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    assert open_scene(scene_objects()[0]).digest and package_of(load_request(from_blend(take().folder)))
    assert strip_of(take()).type == "MOVIE" and from_blend(strip_of(take()).filepath).is_file()

    # The copy of before the move leads to where the files are now; so does undo.
    bpy.ops.wm.open_mainfile(filepath=f"{blend}1")
    assert from_blend(take().folder) == blend.parent / "takes" / "arc_1"
    assert from_blend(strip_of(take()).filepath).is_file() and open_scene(scene_objects()[0])


def test_undo_does_not_bring_back_paths_that_have_moved(unsaved, project, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.ex4d.move_into_project()
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    bpy.ops.ed.undo()
    tick_round()
    assert from_blend(scene_objects()[0].ex4d_scene.folder) == tmp_path / "scenes" / "card_1"
    assert open_scene(scene_objects()[0])


def test_a_take_under_way_goes_on_where_it_was_moved(connected, unsaved, tmp_path):
    key = send().key
    tick_until(lambda: take().job != "", "the job to be accepted")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    assert bpy.ops.ex4d.move_into_project() == {"FINISHED"}
    assert is_followed(take()) and take().key == key and take().folder == "//takes/arc_1"
    tick_until_over()
    assert (take().state, take().reason) == ("done", "")
    assert (tmp_path / "takes" / "arc_1" / "take.mp4").is_file() and strip_of(take()).type == "MOVIE"


def test_a_file_that_is_saved_into_the_project_folder_has_nothing_to_move(unsaved, project):
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "film.blend"))
    assert not folders_to_move()
    assert scene_objects()[0].ex4d_scene.folder == "//scenes/card_1"


def test_a_copy_leaves_an_unsaved_file_with_its_absolute_paths(unsaved, project, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)
    assert scene_objects()[0].ex4d_scene.folder == str(project / "scenes" / "card_1")


def test_a_name_that_is_taken_in_the_project_is_not_overwritten(unsaved, tmp_path):
    (tmp_path / "scenes" / "card_1").mkdir(parents=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    bpy.ops.ex4d.move_into_project()
    assert scene_objects()[0].ex4d_scene.folder == "//scenes/card_2" and open_scene(scene_objects()[0])


def test_what_an_earlier_version_left_in_the_extensions_folder_is_found_and_moved(
    monkeypatch, card_scene, project, tmp_path
):
    """In a file that shows it, and in one that is opened later."""
    left = tmp_path / "extension" / "takes"
    monkeypatch.setattr(operators, "former_folders", lambda: [left])
    scene = shutil.copytree(card_scene, left / "scenes" / "card_1")
    (left / "arc_1").mkdir()
    (left / "arc_1" / "request.msgpack").write_bytes(b"")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"))
    import_scene(scene)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"))
    fresh_blender()
    preferences().output_folder = str(project)
    look_for_former_work()
    assert len(former_work()) == 2
    assert bpy.ops.ex4d.rescue_files() == {"FINISHED"}
    assert not files_below(left) and not former_work()
    assert (project / "takes" / "arc_1").is_dir() and (project / "scenes" / "card_1").is_dir()

    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other.blend"))
    assert from_blend(scene_objects()[0].ex4d_scene.folder) == project / "scenes" / "card_1"
    assert open_scene(scene_objects()[0])


def test_deleting_a_take_says_what_it_deletes_and_leaves_what_is_not_its_own(connected, unsaved, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    send()
    with pytest.raises(RuntimeError, match="is under way; cancel it first"):
        bpy.ops.ex4d.delete_take_files(key=take().key)
    tick_until_over()
    key, folder = take().key, from_blend(take().folder)
    (folder / "notes.txt").write_text("keep")
    (folder / "link.png").symlink_to(tmp_path / "film.blend")
    files = files_of([folder])
    asked = SimpleNamespace(key=key, bl_label=EX4D_OT_delete_take_files.bl_label)
    asked.files = lambda context: files
    asked.consequence = lambda: "The take leaves the list."
    window_manager = SimpleNamespace(invoke_props_dialog=lambda one, **_: {"RUNNING_MODAL"})
    EX4D_OT_delete_take_files._ask(asked, SimpleNamespace(window_manager=window_manager))
    on_disk = sum(path.stat().st_size for path in files.paths)
    assert f"{len(files.paths)} files, {on_disk / 1e6:.1f} MB in {folder}" in asked._lines[0]

    assert bpy.ops.ex4d.delete_take_files(key=key) == {"FINISHED"}
    assert files_below(folder) == {"notes.txt", "link.png"} and (tmp_path / "film.blend").is_file()
    assert not bpy.context.scene.ex4d_takes and find_strip(bpy.context.scene, key) is None
    assert key not in tracker.followed


def test_deleting_a_scene_deletes_its_package_and_its_mesh(unsaved, project):
    camera, package = bpy.data.objects["arc"], project / "scenes" / "card_1"
    assert bpy.ops.ex4d.delete_scene_files() == {"FINISHED"}
    assert not scene_objects() and not package.exists() and camera.name in bpy.data.objects


def test_a_folder_that_is_no_take_is_never_deleted(tmp_path):
    """A .blend from a stranger can name any folder."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "take.mp4").write_bytes(b"film")
    record = bpy.context.scene.ex4d_takes.add()
    record.key, record.folder, record.state = "k1", str(mine), "done"
    with pytest.raises(RuntimeError, match="nothing to delete"):
        bpy.ops.ex4d.delete_take_files(key="k1")
    assert (mine / "take.mp4").is_file() and len(bpy.context.scene.ex4d_takes) == 1


def test_old_work_is_measured_and_deleted_and_nothing_else(project):
    for name in ("takes/one_1", "takes/two_1", "old_1", "takes/mine"):  # old_1: as version 0.1 put them
        (project / name).mkdir(parents=True)
        (project / name / "frame_00000.png").write_bytes(bytes(500_000))
        if name != "takes/mine":
            (project / name / "request.msgpack").write_bytes(b"")
    bpy.context.scene.ex4d_takes.add().folder = str(project / "takes" / "two_1")
    bpy.ops.ex4d.measure_files()
    assert bpy.context.window_manager.ex4d_files_on_disk == "3 scenes and takes, 1.5 MB; 2 of them can be deleted"
    assert bpy.ops.ex4d.delete_old_files() == {"FINISHED"}
    assert sorted(one.name for one in (project / "takes").iterdir()) == ["mine", "two_1"]
    assert not (project / "old_1").exists()
    bpy.context.scene.ex4d_takes.clear()
    bpy.ops.ex4d.delete_old_files()
    with pytest.raises(RuntimeError, match="nothing to delete"):
        bpy.ops.ex4d.delete_old_files()


def test_files_of_a_blend_in_the_project_folder_are_not_taken_for_old_ones(unsaved, project):
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "film.blend"))
    fresh_blender()
    preferences().output_folder = str(project)
    with pytest.raises(RuntimeError, match=r"film\.blend is saved in the project folder"):
        bpy.ops.ex4d.delete_old_files()
    assert (project / "scenes" / "card_1" / "manifest.json").is_file()
