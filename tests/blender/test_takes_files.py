"""Takes and files: one that is reverted, another that is opened or linked, and an add-on that is enabled in between."""

from __future__ import annotations

import addon_utils  # comes with bpy
import bpy
import pytest

from blender_addon.connection.session import session

from .conftest import linked_into_another_file, tick_round, tick_until
from .taking import is_followed, send, strip_of, take, tick_until_over


def test_a_reverted_file_gets_its_strip_again(connected, shot, tmp_path):
    send()
    tick_until(lambda: take().job != "", "the job to be accepted")
    bpy.ops.wm.save_mainfile()
    tick_until(lambda: strip_of(take()) is not None, "the first frame")
    bpy.ops.wm.revert_mainfile()
    assert strip_of(take()) is None and is_followed(take())
    tick_until_over()
    assert (take().state, take().reason, strip_of(take()).type) == ("done", "", "MOVIE")


def test_an_add_on_that_is_disabled_and_enabled_again_resumes_its_takes(connected, shot):
    """As by an update of it; no file is loaded."""
    key = send().key
    tick_until(lambda: take().job != "", "the job to be accepted")
    addon_utils.disable("blender_addon")
    assert addon_utils.enable("blender_addon") is not None
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    assert not is_followed(take())
    tick_until_over()
    assert (take().key, take().state, strip_of(take()).type) == (key, "done", "MOVIE")


@pytest.mark.parametrize("moment", ["under way", "done"])
def test_a_take_sent_after_the_last_save_is_listed_again_in_the_reverted_file(connected, shot, tmp_path, moment):
    bpy.context.scene.name = "Tokyo"
    bpy.ops.wm.save_mainfile()
    bpy.data.scenes.new("other")
    key, of_shot = send().key, take().shot
    tick_until(lambda: take().job != "", "the job to be accepted")
    if moment == "done":
        tick_until_over()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)  # saves it elsewhere
    bpy.ops.wm.revert_mainfile()
    assert [scene.name for scene in bpy.data.scenes] == ["Tokyo"]
    tick_until_over()
    assert (take().key, take().state, take().reason, strip_of(take()).type) == (key, "done", "", "MOVIE")
    assert of_shot and (take().shot, take().version, strip_of(take()).name) == (of_shot, 1, "arc v1")

    # Taken off the list, or saved and then taken off, it stays away.
    bpy.ops.wm.save_mainfile()
    bpy.context.scene.ex4d_takes.clear()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.revert_mainfile()
    tick_round()
    assert not bpy.context.scene.ex4d_takes


def test_a_take_retried_after_the_last_save_is_listed_once_in_the_reverted_file(connected, shot):
    key = send().key
    bpy.ops.ex4d.cancel_take(key=key)
    bpy.ops.wm.save_mainfile()
    assert bpy.ops.ex4d.retry_take(key=key) == {"FINISHED"}
    again = take().key
    tick_until(lambda: take().job != "", "the job to be accepted")
    bpy.ops.wm.revert_mainfile()
    tick_until_over()
    assert [(one.key, one.state) for one in bpy.context.scene.ex4d_takes] == [(again, "done")]


def test_a_take_of_one_file_is_not_listed_in_another(connected, shot, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"), copy=True)
    send()
    tick_until_over()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other.blend"))
    tick_round()
    assert not bpy.context.scene.ex4d_takes
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    tick_until_over()
    assert (take().state, strip_of(take()).type) == ("done", "MOVIE")


def test_a_take_continues_while_another_file_is_open(connected, shot, tmp_path):
    entry = send()
    key, folder = entry.key, tmp_path / "takes" / "arc_1"
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"))
    bpy.context.scene.ex4d_takes.clear()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other.blend"))
    tick_until(lambda: (folder / "take.mp4").exists() and not session().busy, "the movie")
    assert not bpy.context.scene.ex4d_takes

    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    tick_until_over()
    assert take().key == key and strip_of(take()).type == "MOVIE"


def test_takes_of_a_linked_scene_are_left_to_its_own_file(shot, tmp_path):
    send()
    linked = linked_into_another_file(tmp_path / "shot.blend")
    assert linked.ex4d_takes[0].state == "sending" and not is_followed(linked.ex4d_takes[0])
