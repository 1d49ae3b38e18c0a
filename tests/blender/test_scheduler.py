"""The scheduler: work within the budget of a tick, undo and redo, and work that fails."""

from __future__ import annotations

import bpy
import pytest

from blender_addon import scheduler as scheduler_module
from blender_addon.connection.session import session
from blender_addon.errors import contained, failure_text, failures, forget_failures
from blender_addon.scheduler import BUSY_INTERVAL_SECONDS, IDLE_INTERVAL_SECONDS, Scheduler, scheduler, tick
from ex4d_core.errors import RequestError


@pytest.fixture
def no_hurry(monkeypatch) -> None:
    """Budgets that also a busy machine keeps, so that every tick does all of the work."""
    monkeypatch.setattr(scheduler_module, "TICK_BUDGET_SECONDS", 60.0)


def test_work_that_fails_is_reported_once_and_stops_no_other(no_hurry, capsys):
    done = []

    def failing():
        raise KeyError("no such take")

    tick()  # the first one restores
    scheduler.every_tick(failing, 0.001)
    scheduler.every_tick(lambda: done.append(1), 0.001)
    tick()
    tick()
    assert len(done) == 2 and session().connected is False
    assert capsys.readouterr().err.count("KeyError: 'no such take'") == 1
    assert len(failures()) == 1 and "in failing" in failures()[0]
    assert "KeyError" in failure_text()
    forget_failures()
    bpy.ops.ex4d.reconnect()
    assert failure_text() == "" and not failures()


def test_an_error_that_the_artist_can_act_on_is_shown_as_it_is():
    with contained():
        raise RequestError("choose a longer shot")
    assert failure_text() == "choose a longer shot"
    forget_failures()


def test_an_undo_and_a_redo_are_followed_once_each_in_a_tick_of_their_own(no_hurry):
    done = []
    scheduler.every_tick(lambda: done.append("work"), 0.001)
    scheduler.after_undo(lambda: done.append("restored"))
    tick()
    assert done == ["restored"]  # whatever was before the add-on was enabled
    tick()
    assert done == ["restored", "work"]
    done.clear()
    bpy.ops.ed.undo_push(message="before")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something")
    tick()
    assert done == ["work"]
    bpy.ops.ed.undo()
    assert done == ["work"]  # not from inside of Blender's undo
    for _ in range(3):
        tick()
    bpy.ops.ed.redo()
    tick()
    assert done == ["work", "restored", "work", "work", "restored"]


def test_a_step_of_its_own_that_fails_leaves_those_behind_it(capsys):
    done = []

    def failing():
        raise ZeroDivisionError("never")

    tick()
    scheduler.run_alone(failing)
    scheduler.run_alone(lambda: done.append(1))
    assert (tick(), done) == (BUSY_INTERVAL_SECONDS, [])
    tick()
    assert done == [1] and not session().busy
    assert "ZeroDivisionError: never" in capsys.readouterr().err and len(failures()) == 1
    forget_failures()


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_a_tick_keeps_its_budget_and_the_next_one_does_the_rest(monkeypatch):
    clock, done = Clock(), []
    monkeypatch.setattr(scheduler_module, "time", clock)
    one = Scheduler()

    def work(name: str, seconds: float) -> None:
        def run() -> None:
            done.append(name)
            clock.now += seconds

        one.every_tick(run, 0.001)

    assert one.tick() == BUSY_INTERVAL_SECONDS  # restores, and there is nothing to restore
    work("a", 0.001)
    work("b", 0.0025)  # more than it said
    work("c", 0.001)
    work("d", 0.001)
    assert one.tick() == BUSY_INTERVAL_SECONDS and done == ["a", "b"]
    assert one.last_tick == pytest.approx(0.0035)
    assert one.tick() == IDLE_INTERVAL_SECONDS and done == ["a", "b", "c", "d"]
    one.run_alone(lambda: done.append("alone"))
    one.tick()
    assert done[4:] == ["alone"]
    one.tick()
    assert done[5:] == ["a", "b"]


def test_the_budgets_of_all_work_are_known_and_each_fits_into_a_tick():
    # Test of the backend, arrivals, drawing, tabs, jobs, viewports, missing scenes, comparison, camera path, coverage,
    # views, live drafts, weights.
    assert len(scheduler._work) == 13
    assert all(0 < work.budget <= scheduler_module.TICK_BUDGET_SECONDS <= 0.004 for work in scheduler._work)


def test_the_timer_survives_loading_a_file(tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "empty.blend"))
    before = session()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "empty.blend"))
    assert bpy.app.timers.is_registered(tick)
    assert session() is before
