"""What changes data waits while the artist drags something, or while Blender renders."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import pytest

from blender_addon import busy
from blender_addon import scheduler as scheduler_module
from blender_addon.busy import changing_operator, reason_to_wait
from blender_addon.scheduler import Scheduler


def windows_with(*operators: object) -> list[SimpleNamespace]:
    return [SimpleNamespace(modal_operators=[]), SimpleNamespace(modal_operators=operators)]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"REGISTER", "UNDO", "BLOCKING", "GRAB_CURSOR"}, True),  # a transform
        ({"UNDO", "BLOCKING"}, True),  # drawing a stroke
        ({"BLOCKING"}, True),
        ({"REGISTER"}, False),  # an add-on that shows pressed keys for as long as Blender runs
        (set(), False),
    ],
)
def test_operators_that_end_with_an_undo_step_or_hold_everything_up_are_waited_for(options, changes):
    running = SimpleNamespace(bl_options=options, bl_label="Move")
    found = changing_operator(windows_with(None, running))  # None is what an add-on leaves that was disabled
    assert (found is running) is changes


def test_blenders_own_transforms_are_among_them():
    """Their options as this version of Blender has them."""
    for operator in (bpy.ops.transform.translate, bpy.ops.view3d.select_box, bpy.ops.mesh.knife_tool):
        assert changing_operator(windows_with(SimpleNamespace(bl_options=operator.bl_options)))


def test_a_render_is_waited_for_by_name(monkeypatch):
    assert reason_to_wait() == ""
    monkeypatch.setattr(busy, "bpy", SimpleNamespace(app=SimpleNamespace(is_job_running=lambda job: job == "RENDER")))
    assert "Render" in reason_to_wait()


def test_a_change_waits_for_its_moment_and_nothing_else_waits_for_it(monkeypatch):
    dragging, done = "Waits for the end of: Move", []
    monkeypatch.setattr(scheduler_module, "reason_to_wait", lambda: dragging)
    one = Scheduler()
    one.tick()  # restores, and there is nothing to restore
    one.every_tick(lambda: done.append("progress"), 0.001)

    def change() -> None:
        done.append("change")

    one.run_when_idle(change)
    one.run_when_idle(change)  # waits already
    one.tick()
    assert done == ["progress"] and not one.pending
    dragging = ""
    assert one.pending
    one.tick()
    one.tick()
    assert done == ["progress", "change", "progress"]
