"""Runs the add-on's work in ticks of Blender's timer, each within a budget, so that the interface stays smooth.

Work is registered with the time that it may take in the worst case (`Scheduler.every_tick`). A tick starts a piece of
work only if the work's budget fits into what is left of the tick's; the rest follows in the next tick, which then comes
soon. What cannot keep a budget has a tick to itself: single steps (opening a movie, importing a scene: see
`Scheduler.run_alone`), and bringing the file up to date after an undo. Steps that change data wait for the end of what
the artist is doing (`Scheduler.run_when_idle`). Nothing here blocks, and no thread is involved.
In background mode, where timers do not run, the caller calls `tick`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import bpy

from .busy import reason_to_wait
from .errors import contained, note_failure

# The work of one tick, in seconds. 1 ms more is left for what runs over, since a frame at 60 Hz has 16 ms.
TICK_BUDGET_SECONDS = 0.004
# Budgets of what runs in every tick, in seconds.
ARRIVALS_SECONDS = 0.002
JOBS_SECONDS = 0.001
LIVE_SECONDS = 0.001
REDRAW_SECONDS = 0.0005

BUSY_INTERVAL_SECONDS = 0.02
IDLE_INTERVAL_SECONDS = 0.25


@dataclass(frozen=True)
class Work:
    """Something to do in every tick.

    Attributes:
        run: does a piece of it.
        budget: seconds that a piece takes at most.
    """

    run: Callable[[], None]
    budget: float


class Scheduler:
    """All work of the add-on, in the order in which it was registered.

    Attributes:
        last_tick: seconds that it took.
        ran_alone: whether it did a step of its own, which may exceed the budget, or brought the file up to date.
    """

    def __init__(self) -> None:
        """Start without work."""
        self.reset()

    def reset(self) -> None:
        """Drop all work."""
        self.last_tick = 0.0
        self.ran_alone = False
        self._work: list[Work] = []
        self._after_undo: list[Callable[[], None]] = []
        self._rest: list[Work] = []
        self._alone: deque[Callable[[], None]] = deque()
        self._when_idle: deque[Callable[[], None]] = deque()
        self._undone = True
        self._soon = False

    @property
    def pending(self) -> bool:
        """Whether something waits for the next tick: a step of its own, or work that the last one had no time for."""
        return bool(self._alone or self._rest or (self._when_idle and not reason_to_wait()))

    def every_tick(self, run: Callable[[], None], budget: float) -> None:
        """Do something in every tick, within ``budget`` seconds."""
        self._work.append(Work(run, budget))

    def after_undo(self, run: Callable[[], None]) -> None:
        """Do something in the very first tick, and in the first one after each undo or redo.

        Blender's own handlers for these are no moment to change anything, and neither is the enabling of an add-on.
        """
        self._after_undo.append(run)

    def run_alone(self, step: Callable[[], None]) -> None:
        """Do something once that may exceed the budget, in a tick that does nothing else."""
        self._alone.append(step)

    def run_when_idle(self, step: Callable[[], None]) -> None:
        """`run_alone` for a step that changes data: not before modal operators and render jobs have ended (see `busy`).

        A step that waits already is not added again.
        """
        if step not in self._when_idle:
            self._when_idle.append(step)

    def tick_soon(self) -> None:
        """Have the next tick soon: something is under way, or did not fit into its budget."""
        self._soon = True

    def undone(self) -> None:
        """Note an undo or a redo, which may have changed anything in the file."""
        self._undone = True

    def tick(self) -> float:
        """Do what is due; returns the seconds until the next tick."""
        begun = time.perf_counter()
        self._soon = False
        self.ran_alone = True
        if self._undone:
            self._undone = False
            for run in self._after_undo:
                with contained():
                    run()
            self._soon = True
        elif self._alone:
            with contained():
                self._alone.popleft()()
        elif self._when_idle and not reason_to_wait():
            with contained():
                self._when_idle.popleft()()
        else:
            self.ran_alone = False
            self._run_work(begun + TICK_BUDGET_SECONDS)
        self.last_tick = time.perf_counter() - begun
        return BUSY_INTERVAL_SECONDS if self._soon or self.pending else IDLE_INTERVAL_SECONDS

    def _run_work(self, deadline: float) -> None:
        due, self._rest = self._rest or list(self._work), []
        for number, work in enumerate(due):
            # The first always runs, or a slow machine would never get any further.
            if number and time.perf_counter() + work.budget > deadline:
                self._rest = due[number:]
                return
            try:
                work.run()
            # The others go on.
            except Exception as error:
                note_failure(error)


scheduler = Scheduler()


def tick() -> float:
    """What the timer calls. Blender drops a timer that raises."""
    with contained():
        return scheduler.tick()
    return IDLE_INTERVAL_SECONDS


@bpy.app.handlers.persistent
def _after_undo(*_: object) -> None:
    scheduler.undone()


HANDLERS = (("undo_post", _after_undo), ("redo_post", _after_undo))


def register() -> None:
    """Start the timer; modules that register later add their work."""
    scheduler.reset()
    bpy.app.timers.register(tick, first_interval=IDLE_INTERVAL_SECONDS, persistent=True)


def unregister() -> None:
    """Stop the timer."""
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
