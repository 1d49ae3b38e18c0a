"""What the add-on does by itself can be undone, and it begins no history where nobody can undo."""

from __future__ import annotations

import shutil

import bpy
import pytest

from blender_addon import scheduler as scheduler_module
from blender_addon.footage.scene_jobs import import_finished
from blender_addon.jobs.tracker import tracker
from blender_addon.paths import to_blend
from blender_addon.scenes.link import scene_objects
from blender_addon.scheduler import scheduler
from blender_addon.undo_steps import add_undo_step

from .conftest import tick_round


def new_object(name: str) -> None:
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, None))


def objects() -> set[str]:
    return {one.name for one in bpy.data.objects}


def arrived_reconstruction(folder) -> None:
    """List a scene that a backend has made and that waits for its import."""
    record = bpy.context.scene.ex4d_reconstructions.add()
    record.key, record.state, record.folder = "0a", "done", to_blend(folder)


def test_in_the_background_no_history_is_begun():
    new_object("first")
    add_undo_step("first")
    new_object("second")
    add_undo_step("second")
    assert not bpy.ops.ed.undo_history.poll() and not bpy.ops.ed.undo.poll()


def test_a_history_that_was_begun_goes_on():
    new_object("by a script")
    bpy.ops.ed.undo_push(message="by a script")
    new_object("by a job")
    add_undo_step("by a job")
    new_object("by the artist")
    bpy.ops.ed.undo_push(message="by the artist")

    for left in ({"by a script", "by a job"}, {"by a script"}):
        bpy.ops.ed.undo()
        assert objects() == left
    bpy.ops.ed.redo()
    assert objects() == {"by a script", "by a job"}


@pytest.mark.parametrize("waits_for", ["Render", ""])
def test_an_import_is_one_step_and_none_during_a_render(card_scene, tmp_path, monkeypatch, waits_for):
    folder = shutil.copytree(card_scene, tmp_path / "card")
    monkeypatch.setattr(tracker, "is_known", lambda _: True)
    monkeypatch.setattr(scheduler_module, "reason_to_wait", lambda: waits_for)
    for step in ("long before", "before"):
        bpy.ops.ed.undo_push(message=step)
    arrived_reconstruction(folder)
    bpy.ops.ed.undo_push(message="arrived")
    scheduler.run_when_idle(import_finished)
    tick_round()

    if waits_for:
        assert not scene_objects()
        return
    assert len(scene_objects()) == 1
    bpy.ops.ed.undo()
    assert not scene_objects() and len(bpy.context.scene.ex4d_reconstructions) == 1
    bpy.ops.ed.redo()
    assert len(scene_objects()) == 1
