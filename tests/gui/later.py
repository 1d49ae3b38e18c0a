"""The sessions after the first one: everything is there again, also after the add-on was uninstalled in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import addon_utils
import bpy
from blender_window import (
    ADDON,
    FINISHED,
    Walk,
    is_connected,
    module,
    press,
    until,
)


def reopen(walk: Walk, zip_file: Path) -> Iterator[float]:
    """The file as it was left; then uninstall and install the zip, as artists update."""
    yield from until(is_connected)
    check_all_there()
    yield from walk.picture("20_reopened")
    before = files_beside()
    repos = [one.module for one in bpy.context.preferences.extensions.repos if one.enabled]
    bpy.ops.extensions.package_uninstall(repo_index=repos.index("user_default"), pkg_id="ex4d")
    assert addon_utils.check(ADDON) == (False, False)
    assert not hasattr(bpy.types.Scene, "ex4d_takes")
    yield from walk.picture("21_uninstalled")
    assert files_beside() == before
    bpy.ops.wm.save_mainfile()
    bpy.ops.extensions.package_install_files(filepath=str(zip_file), repo="user_default", enable_on_install=True)
    assert addon_utils.check(ADDON) == (True, True)
    yield from until(is_connected)
    check_all_there()
    assert files_beside() == before
    bpy.ops.wm.save_userpref()
    yield from walk.picture("22_installed")


def take_again(walk: Walk) -> Iterator[float]:
    """After a restart the work goes on: a third version."""
    yield from until(is_connected)
    check_all_there()
    press(bpy.ops.ex4d.send_take)
    takes = bpy.context.scene.ex4d_takes
    yield from until(lambda: takes[-1].state in FINISHED)
    assert (len(takes), takes[-1].version, takes[-1].state, takes[-1].reason) == (3, 3, "done", "")
    yield from walk.picture("30_third_version")


def check_all_there() -> None:
    """Scene, footage, shot, camera and takes, and the files of all of them."""
    scene = bpy.context.scene
    assert [take.state for take in scene.ex4d_takes][:2] == ["done", "done"]
    assert [one.state for one in scene.ex4d_reconstructions] == ["imported"]
    shot = scene.ex4d_shot
    assert shot.scene_object.name in scene.objects
    assert scene.camera == shot.camera
    assert shot.camera.animation_data.action is not None
    find = module("sequencer.edit_scenes").strip_in_file
    for take in scene.ex4d_takes:
        movie = Path(bpy.path.abspath(take.folder)) / "take.mp4"
        assert movie.is_file()
        assert Path(bpy.path.abspath(find(take.key).filepath)) == movie
    for image in bpy.data.images:
        if image.filepath:
            assert Path(bpy.path.abspath(image.filepath)).is_file(), image.filepath
    for cache in bpy.data.objects[shot.scene_object.name].modifiers:
        if cache.type == "MESH_CACHE":
            assert Path(bpy.path.abspath(cache.filepath)).is_file()


def files_beside() -> dict[str, int]:
    """Sizes of all files of scenes and takes beside the .blend."""
    project = Path(bpy.data.filepath).parent
    found = (path for kind in ("scenes", "takes") for path in (project / kind).rglob("*") if path.is_file())
    return {str(path.relative_to(project)): path.stat().st_size for path in found}
