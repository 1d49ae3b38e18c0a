"""Something that follows the artist in each Blender scene, so that every window shows what is about its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import bpy

from ..blender_types import Subscripted, current_context


class Follower(Protocol):
    """What follows the artist: it takes a step in every tick, and starts over when another file is opened."""

    def step(self) -> None:
        """Do a piece of work, within a live query's budget."""
        ...

    def drop(self) -> None:
        """Stop waiting for answers."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


One = TypeVar("One", bound="Follower")


class OfEachScene(Subscripted, Generic[One]):
    """The followers of one kind, one for each Blender scene."""

    def __init__(self, kind: Callable[[], One]) -> None:
        """Start without followers, which are made with ``kind``."""
        self._kind = kind
        self._turn = 0
        self._followers: dict[int, One] = {}

    def of(self, blender_scene: bpy.types.Scene) -> One:
        """The follower of a Blender scene."""
        key = blender_scene.session_uid
        if key not in self._followers:
            self._followers[key] = self._kind()
        return self._followers[key]

    def step(self) -> None:
        """Let one follower take a step in the context of a window that shows its scene; all have their turns."""
        windows = {window.scene.session_uid: window for window in bpy.context.window_manager.windows}
        if not windows:
            return
        self._turn += 1
        window = list(windows.values())[self._turn % len(windows)]
        with current_context().temp_override(window=window):
            self.of(window.scene).step()

    def drop(self) -> None:
        """Let none of them wait for answers."""
        for follower in self._followers.values():
            follower.drop()

    def reset(self) -> None:
        """Forget all of them."""
        self._followers = {}


def areas_of(blender_scene: bpy.types.Scene, kinds: set[str]) -> list[bpy.types.Area]:
    """The open editors of these kinds, in the windows that show a Blender scene."""
    windows = (window for window in bpy.context.window_manager.windows if window.scene == blender_scene)
    return [area for window in windows for area in window.screen.areas if area.type in kinds]
