"""A job's way through the session: its conversation kept going over every connection, and its cancelling.

Takes and reconstructions are errands of this kind; their ``follow`` modules call `Errand.go_on` with every tick, and
show what has become of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bpy

from ex4d_core.client import Conversation, Task
from ex4d_core.jobs import JobConversation
from ex4d_core.messages import JobStatus

from .session import session


def own_scenes() -> list[bpy.types.Scene]:
    """The Blender scenes of the open file; what linked ones list is their own file's to follow, and to change."""
    return [scene for scene in bpy.data.scenes if scene.library is None]


def home_of(uid: int) -> bpy.types.Scene | None:
    """The Blender scene that lists an errand, by its ``session_uid``, which undo and a new name leave as it is.

    Returns:
        None when it was deleted, or another file is open.
    """
    return next((scene for scene in own_scenes() if scene.session_uid == uid), None)


def note_change(what: str) -> None:
    """Make an undo step of what has come into the file by itself, so that Blender asks for saving it."""
    windows = bpy.context.window_manager.windows
    if windows:
        with bpy.context.temp_override(window=windows[0]):
            bpy.ops.ed.undo_push(message=what)


@dataclass
class Errand:
    """One job, from its submission to its last result or to its cancelling.

    Attributes:
        made: what it makes, and what is known of the job.
        begin: starts the conversation that submits it, or goes on with it, and collects what it makes.
        cancelling: the artist cancelled it. Whether the backend has been told shows in `over`.
        withdrawn: cancelled before the backend had named the job, so there are no results to wait for.
        task, cancel_task: the conversations on the session's client; None until there is a client.
        over: nothing more will happen on the wire.
    """

    made: JobConversation
    begin: Callable[[], Conversation[JobStatus]]
    cancelling: bool = False
    withdrawn: bool = False
    task: Task[JobStatus] | None = None
    cancel_task: Task[None] | None = None
    over: bool = False

    @property
    def error(self) -> Exception | None:
        """What ended it before its time."""
        return self.task.error if self.task is not None and self.over and not self.withdrawn else None

    def go_on(self) -> None:
        """Keep its conversations up; after an offline cancel the backend is told when it is back."""
        if self.cancelling:
            self.cancel_task = session().kept_up(self.cancel_task, self.made.cancel)
        if self.withdrawn:
            self.over = not self.made.submitted or (self.cancel_task is not None and self.cancel_task.done)
            return
        self.task = session().kept_up(self.task, self.begin)
        self.over = self.task is not None and self.task.done

    def cancel(self) -> None:
        """Stop the backend's job, or the sending of it; works while no backend answers, too."""
        if self.over or self.cancelling:
            return
        self.cancelling, self.withdrawn = True, not self.made.job
        if self.withdrawn and self.task is not None:
            session().stop(self.task)
        self.go_on()  # the conversation that collects a job's results will hear of its end

    def abandon(self) -> None:
        """Follow it no more; a job of the backend goes on, unless it was cancelled."""
        if self.task is not None:
            session().stop(self.task)
