"""A scene folder that was moved outside of Blender: noticed, named, and linked again."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.paths import from_blend
from blender_addon.scenes.link import MESH_CACHE, images_of, link_of, open_scene, scene_objects
from blender_addon.scenes.missing import missing_scenes, missing_text
from ex4d_core.scene_manifest import SceneError

from .conftest import tick_round
from .test_import_scene import render_frame


@pytest.fixture
def moved(shot, tmp_path) -> Path:
    """Where the scene's folder is now; the open file was saved while it was elsewhere."""
    tick_round()
    assert not missing_scenes.folders
    bpy.ops.wm.save_mainfile()
    target = tmp_path / "archive" / "garden"
    target.parent.mkdir()
    shutil.move(tmp_path / "scenes" / "card", target)
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    tick_round()
    return target


def imported() -> bpy.types.Object:
    (one,) = scene_objects()
    return one


def paths() -> set[Path]:
    """Where everything that shows the scene looks for it."""
    image = next(one for one in bpy.data.images if one.source == "MOVIE")
    cache = imported().modifiers[MESH_CACHE]
    return {
        from_blend(link_of(imported()).folder),
        from_blend(image.filepath).parent,
        from_blend(cache.filepath).parent,
    }


def test_a_moved_folder_is_noticed_and_named(moved, tmp_path):
    assert missing_scenes.folder_of(imported()) == tmp_path / "scenes" / "card"
    assert str(tmp_path / "scenes" / "card") in missing_text(imported())
    with pytest.raises(SceneError, match="Relink Scene"):
        open_scene(imported())
    with pytest.raises(RuntimeError, match="Find Missing Files"):
        bpy.ops.ex4d.send_take()


def test_relinking_leads_everything_to_the_new_folder(moved):
    assert bpy.ops.ex4d.relink_scene(filepath=str(moved / "manifest.json")) == {"FINISHED"}
    assert paths() == {moved} and not missing_scenes.folders
    assert link_of(imported()).folder.startswith("//"), "relative paths stay relative"
    assert open_scene(imported()).digest == link_of(imported()).digest
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    tick_round()
    assert paths() == {moved} and not missing_scenes.folders


def test_another_scene_is_refused(moved, moving_scene):
    before = paths()
    with pytest.raises(RuntimeError, match="another scene"):
        bpy.ops.ex4d.relink_scene(filepath=str(moving_scene / "manifest.json"))
    assert paths() == before and missing_scenes.folders


def test_what_blenders_find_missing_files_found_is_linked(moved):
    assert bpy.ops.file.find_missing_files(directory=str(moved.parent)) == {"FINISHED"}
    for _ in range(25):  # it looks from time to time
        tick_round()
    assert not missing_scenes.folders
    assert paths() == {moved}
    open_scene(imported())


def test_a_folder_that_goes_while_the_file_is_open_is_noticed_and_its_return_too(shot, tmp_path):
    tick_round()
    shutil.move(tmp_path / "scenes" / "card", tmp_path / "away")
    for _ in range(25):
        tick_round()
    assert missing_scenes.folder_of(imported()) is not None
    (image,) = images_of(imported())
    image.reload()
    assert not image.size[0], "Blender has noticed, too, and would show magenta from now on"
    shutil.move(tmp_path / "away", tmp_path / "scenes" / "card")
    for _ in range(25):
        tick_round()
    assert missing_scenes.folder_of(imported()) is None
    assert tuple(image.size) == (48, 32)


def rendered(target: Path) -> np.ndarray:
    """(H, W, 3) a small picture through the source camera, 0 to 255."""
    scene = bpy.context.scene
    scene.camera = link_of(imported()).source_camera
    scene.render.resolution_percentage = 50
    return render_frame(1, target)


def magenta(picture: np.ndarray) -> float:
    """Share of the picture that is closer to Blender's magenta, or to the unseen color, than to gray."""
    return float((np.minimum(picture[..., 0], picture[..., 2]) - picture[..., 1] > 60).mean())


def test_renders_show_missing_footage_in_gray_and_footage_that_returned(shot, tmp_path):
    tick_round()
    footage = rendered(tmp_path / "footage.png")
    shutil.move(tmp_path / "scenes" / "card", tmp_path / "away")
    bpy.ops.wm.save_mainfile()
    # As in "blender -b shot.blend -f 1": no tick comes before the render.
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    gray = rendered(tmp_path / "gray.png")
    assert magenta(gray) == 0.0
    assert np.ptp(gray[16 // 2, 24 // 2]) < 2 and 60 < gray[16 // 2, 24 // 2, 0] < 140, "gray, and not empty"

    bpy.ops.wm.save_mainfile()
    shutil.move(tmp_path / "away", tmp_path / "scenes" / "card")
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    assert np.abs(rendered(tmp_path / "again.png") - footage).mean() < 2.0


def test_footage_that_goes_while_the_file_is_open_becomes_gray_in_the_material(shot, tmp_path):
    tick_round()
    (image,) = images_of(imported())
    tree = imported().active_material.node_tree
    before = {(link.from_node.name, link.to_node.name) for link in tree.links}
    movie = from_blend(image.filepath)
    movie.rename(tmp_path / "away.mp4")
    for _ in range(25):
        tick_round()
    assert not tree.nodes["Footage"].outputs["Color"].is_linked
    assert tree.nodes["Seen"].inputs["Color"].links[0].from_node.type == "RGB"
    assert tree.nodes.active == tree.nodes["Footage"], "what Solid view shows"
    (tmp_path / "away.mp4").rename(movie)
    for _ in range(25):
        tick_round()
    assert {(link.from_node.name, link.to_node.name) for link in tree.links} == before
    assert len(tree.nodes) == len({*sum(before, ())})
