"""Which depth estimators and adapters the backend has, and downloads of weights there; asked of the backend."""

from __future__ import annotations

import time
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.client import Conversation, RequestRefused, Task
from ex4d_core.errors import user_message
from ex4d_core.message_base import Message
from ex4d_core.weight_messages import (
    ADAPTER_KIND,
    CancelFetch,
    DescribeWeights,
    FetchWeights,
    WeightsPart,
    WeightsReply,
)

from ..connection.preferences import chosen_licence
from ..connection.session import session
from ..scheduler import LIVE_SECONDS, scheduler

AUTO = "auto"
# No adapter of that name can be asked for, as it begins with an underscore.
PUBLISHED_ADAPTER = "_EX-4D"
# How often the backend is asked: while something is fetched, and else.
_FETCHING_SECONDS, _IDLE_SECONDS = 0.5, 10.0


class BackendWeights:
    """The newest answer about weights.

    Attributes:
        estimators: depth estimators, in the backend's order of preference; empty before an answer, or from an older
            backend.
        adapters: that finals can take instead of EX-4D's.
        allowed: whether the backend fetches weights for its clients.
        problem: why the last request was refused, for people; "" if it was not.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.estimators: list[WeightsPart] = []
        self.adapters: list[WeightsPart] = []
        self.allowed = False
        self.problem = ""
        self._task: Task[Any] | None = None
        self._client: object = None
        self._asked = float("-inf")

    def find(self, name: str) -> WeightsPart | None:
        """The estimator of a name; for "auto" one that can be used, else the smallest that any work may use."""
        if name != AUTO:
            return next((one for one in self.estimators if one.name == name), None)
        here = [one for one in self.estimators if one.state == "here" and not one.lacks and not why_forbidden(one)]
        free = sorted((one for one in self.estimators if one.commercial), key=lambda one: one.bytes)
        return next(iter([*here, *free]), None)

    def fetch(self, name: str) -> None:
        """Have the backend start or resume a download."""
        self._ask(FetchWeights(name))

    def cancel(self, name: str) -> None:
        """Have the backend stop a download."""
        self._ask(CancelFetch(name))

    def step(self) -> None:
        """Take an answer, and ask again if that is due; the scheduler calls it in every tick."""
        if session().client is not self._client:  # another backend
            self.reset()
            self._client = session().client
        task = self._task
        if task is not None and task.done:
            self._task = None
            if isinstance(task.result, WeightsReply):
                self._received(task.result)
            elif task.error is not None:
                older = isinstance(task.error, RequestRefused) and task.error.code == "bad-message"
                self.problem = "" if older else user_message(task.error)
            session().redraw()
        fetching = any(one.state == "fetching" for one in self.estimators)
        interval = _FETCHING_SECONDS if fetching else _IDLE_SECONDS
        if self._task is None and session().connected and time.monotonic() - self._asked > interval:
            self._ask(DescribeWeights())

    def _ask(self, message: Message) -> None:
        self._asked = time.monotonic()
        if self._task is not None:
            session().stop(self._task)
        self._task = session().start(_conversation(message))
        scheduler.tick_soon()

    def _received(self, reply: WeightsReply) -> None:
        self.estimators = [one for one in reply.parts if one.kind == "depth"]
        self.adapters = [one for one in reply.parts if one.kind == ADAPTER_KIND]
        self.allowed, self.problem = reply.allowed, ""


def _conversation(message: Message) -> Conversation[WeightsReply]:
    return (yield message)


def why_forbidden(part: WeightsPart) -> str:
    """Why a part must not be used for the results that the preferences name, for people; "" if it may."""
    if part.use == "any" or (part.use == "research" and chosen_licence() == "research"):
        return ""
    if part.use == "none":
        text = iface_("{name} is for research only, and this backend is set up for commercial work. License: {licence}")
    else:
        text = iface_(
            "{name} is for research only: choose another, or set License in the preferences to Research. "
            "License: {licence}"
        )
    return text.format(name=part.title, licence=part.licence)


weights = BackendWeights()
# Blender keeps no reference to the texts of such enums.
_items: list[tuple[str, str, str]] = []
_adapter_items: list[tuple[str, str, str]] = []


def estimator_items(settings: Any, _: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    """The backend's estimators as choices, and the one that is set, which another backend may have."""
    found = [(AUTO, iface_("Automatic"), iface_("The best one that this backend has and the license setting allows"))]
    found += [(one.name, one.title, why_forbidden(one) or one.lacks or one.licence) for one in weights.estimators]
    if settings.estimator not in [name for name, _, _ in found]:
        found.append((settings.estimator, settings.estimator, iface_("This backend does not have it")))
    _items[:] = found
    return _items


def adapter_items(final: Any, _: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    """The backend's adapters as choices, EX-4D's first, and the one that is set, which another backend may have."""
    found = [(PUBLISHED_ADAPTER, "EX-4D", iface_("The published adapter"))]
    found += [(one.name, one.title, "") for one in weights.adapters if one.name != PUBLISHED_ADAPTER]
    if final.adapter and final.adapter not in [name for name, _, _ in found]:
        found.append((final.adapter, final.adapter, iface_("This backend does not have it")))
    _adapter_items[:] = found
    return _adapter_items


def register() -> None:
    """Ask in ticks."""
    weights.reset()
    scheduler.every_tick(weights.step, LIVE_SECONDS)


def unregister() -> None:
    """Forget the backend's answers."""
    weights.reset()
