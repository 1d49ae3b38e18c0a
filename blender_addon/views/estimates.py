"""The picture that is forming while a final is denoised: in an image datablock, and as the take's small picture.

The take's conversation puts each new estimate into the take's folder; here the disk is looked at for a newer one.
"""

from __future__ import annotations

import time

import bpy

from ex4d_core.takes import ESTIMATE_FILE

from ..connection.session import session
from ..paths import from_blend
from ..takes.follow import is_followed
from ..takes.properties import EX4D_Take
from .pictures import open_picture, show_picture

IMAGE = "EX-4D In the Making"
# Looking at the disk costs little, but not nothing.
_LOOK_SECONDS = 0.2

_looked = 0.0
_shown: tuple[str, int] = ("", 0)


def follow_all() -> None:
    """Show the newest estimate of the takes under way; the session calls it once per tick."""
    global _looked, _shown
    if time.monotonic() - _looked < _LOOK_SECONDS:
        return
    _looked = time.monotonic()
    for scene in bpy.data.scenes:
        for entry in scene.ex4d_takes:
            if entry.state != "running" or not is_followed(entry):
                continue
            state = (entry.key, _made(entry))
            if state[1] and state != _shown:
                _shown = state
                show_picture(IMAGE, (from_blend(entry.folder) / ESTIMATE_FILE).read_bytes())
                session().redraw()


def estimate_image() -> bpy.types.Image | None:
    """The image that shows it, if there has been one."""
    return bpy.data.images.get(IMAGE)


def _made(entry: EX4D_Take) -> int:
    """When the take's newest estimate was written, in nanoseconds; 0 if there is none."""
    try:
        return (from_blend(entry.folder) / ESTIMATE_FILE).stat().st_mtime_ns
    except OSError:
        return 0


class EX4D_OT_watch_take(bpy.types.Operator):
    bl_idname = "ex4d.watch_take"
    bl_label = "Watch"
    bl_description = "Show the picture that is forming in an Image Editor: one that is open, or a new window"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if estimate_image() is None:
            cls.poll_message_set("There is no picture yet: it comes with the first step of a final")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        open_picture(context, estimate_image())
        return {"FINISHED"}


CLASSES = (EX4D_OT_watch_take,)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    global _shown
    _shown = ("", 0)


def register() -> None:
    session().followers.append(follow_all)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    session().followers.remove(follow_all)
