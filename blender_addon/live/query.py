"""A question about the active shot that is asked again whenever the answer may have changed.

Only the newest question is of interest, and the backend is asked at most once in a stated interval. Answers are kept
here and not in the .blend: they are asked for again in a moment.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.conversations import Task
from ex4d_core.errors import user_message
from ex4d_core.messages import Message
from ex4d_core.scene import Scene
from ex4d_core.transfers import ask_about

from ..blender_types import Subscripted
from ..connection.session import session
from ..errors import contained
from ..jobs.origin import is_seal, seal
from ..scenes.link import open_scene
from ..scheduler import LIVE_SECONDS, scheduler
from .each_scene import Follower

Answer = TypeVar("Answer")

# What the seal of a question that was switched on is about.
_SWITCHED_ON = "live query"


def note_switch(settings: Any, _: bpy.types.Context) -> None:
    """Seal the settings when the artist switches their question on; an ``update`` of the property ``live``."""
    if settings.live:
        settings.seal = seal(_SWITCHED_ON)


class LiveQuery(Subscripted, ABC, Generic[Answer]):
    """One such question and its newest answer.

    Attributes:
        settings: name of the Blender scene's settings, whose ``live`` switches the following on. A file's own ``live``
            counts only with a ``seal`` of this computer (see `jobs.origin`): following sends the scene.
        interval: seconds between two questions, at least.
        problem: why there is no answer, for people; "" while all is well.
    """

    settings: ClassVar[str]
    interval: ClassVar[float]

    def __init__(self) -> None:
        """Start without an answer."""
        self.reset()

    def reset(self) -> None:
        """Forget the answer and what was asked, as when another file is opened."""
        self.problem = ""
        self._package: Scene | None = None
        self._task: Task[Any] | None = None
        self._tried_at = float("-inf")

    @property
    def waiting(self) -> bool:
        """Whether a question has not been answered yet."""
        return self._task is not None

    @abstractmethod
    def follow(self, blender_scene: bpy.types.Scene) -> None:
        """Ask if something has changed; called in every tick while a backend is connected and this is switched on."""

    @abstractmethod
    def received(self, answer: Answer) -> None:
        """Handle the answer to the newest question."""

    @abstractmethod
    def failed(self) -> None:
        """Note that the newest question has to be asked again."""

    def step(self) -> None:
        """Handle what has arrived, and ask again if that is due; the scheduler calls it in every tick."""
        task = self._task
        if task is not None and task.done:
            self._task = None
            if task.error is not None:
                self.failed()
                self.report(user_message(task.error))
            elif task.result is not None:
                self.received(task.result)
        blender_scene = bpy.context.scene
        if blender_scene is None or not (settings := getattr(blender_scene, self.settings)).live:
            return
        if not is_seal(settings.seal, _SWITCHED_ON):
            text = iface_("Paused, as it was not switched on on this computer: switch it off and on again")
            if self.problem != text:
                self.report(text)
        elif session().connected:
            self.follow(blender_scene)

    def may_ask(self) -> bool:
        """Whether the interval since the last try is over."""
        return time.monotonic() - self._tried_at >= self.interval

    def note_try(self) -> None:
        """Let the interval begin."""
        self._tried_at = time.monotonic()

    def open(self, scene_object: bpy.types.Object) -> Scene:
        """The scene package behind an imported scene, kept open between questions.

        Raises:
            SceneError: it is gone or changed.
        """
        if self._package is None or self._package.digest != scene_object.ex4d_scene.digest:
            self._package = open_scene(scene_object)
        return self._package

    def ask(self, package: Scene, question: Message) -> None:
        """Ask about a scene, which is sent first if the backend lacks it; an older question is dropped.

        Raises:
            NotConnectedError: the preferences allow no connection.
        """
        self.drop()
        self._task = session().start(ask_about(package, question))
        scheduler.tick_soon()

    def drop(self) -> None:
        """Stop waiting for an answer."""
        if self._task is not None:
            session().stop(self._task)
            self._task = None

    def report(self, problem: str) -> None:
        """Show a problem; "" when it is solved."""
        self.problem = problem
        session().redraw()


_queries: list[Follower] = []


def add_query(query: Follower) -> None:
    """Let a query, or those of all scenes, follow the artist from now on."""
    query.reset()
    _queries.append(query)
    scheduler.every_tick(query.step, LIVE_SECONDS)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    for query in _queries:
        with contained():
            query.drop()  # the answer would be about another file
            query.reset()


HANDLERS = (("load_post", _after_load),)


def unregister() -> None:
    """Follow nothing."""
    _queries.clear()
