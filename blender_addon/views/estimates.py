"""The picture that is forming while a final is denoised: in an image datablock, which an Image Editor can show."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..connection.session import session
from ..takes.follow import newest_estimates
from .pictures import open_picture, show_picture

IMAGE = "EX-4D In the Making"

# How many estimates of each take have been seen to.
_seen: dict[str, int] = {}


def follow_all() -> None:
    """Show an estimate that has arrived; the session calls it once per tick."""
    for key, count, path in newest_estimates():
        if _seen.get(key) != count:
            _seen[key] = count
            if path.is_file():
                show_picture(IMAGE, path.read_bytes())
                session().redraw()


def estimate_image() -> bpy.types.Image | None:
    """The image that shows it, if there has been one."""
    return bpy.data.images.get(IMAGE)


class EX4D_OT_watch_take(bpy.types.Operator):
    bl_idname = "ex4d.watch_take"
    bl_label = "Watch"
    bl_description = "Show the picture that is forming in an Image Editor: one that is open, or a new window"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if estimate_image() is None:
            cls.poll_message_set(iface_("There is no picture yet: it comes with the first step of a final"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        open_picture(context, estimate_image())
        return {"FINISHED"}


CLASSES = (EX4D_OT_watch_take,)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _seen.clear()


def register() -> None:
    session().followers.append(follow_all)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    session().followers.remove(follow_all)
