"""The image that is forming while a final is denoised: in an image datablock, which an Image Editor can show."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..connection.session import session
from ..scheduler import LIVE_SECONDS, scheduler
from ..takes.take_jobs import newest_estimates
from .images import open_image, show_image

IMAGE = "EX-4D In the Making"

# How many estimates of each take have been shown, by key.
_shown: dict[str, int] = {}


def show_estimates() -> None:
    """Show an estimate that has arrived; the scheduler calls it in every tick."""
    for key, count, path in newest_estimates():
        if _shown.get(key) != count:
            _shown[key] = count
            if path.is_file():
                show_image(IMAGE, path.read_bytes())
                session().redraw()


def estimate_image() -> bpy.types.Image | None:
    """The image that shows it, if there has been one."""
    return bpy.data.images.get(IMAGE)


class EX4D_OT_watch_take(bpy.types.Operator):
    """Show the image that is forming in an Image Editor: one that is open, or a new window."""

    bl_idname = "ex4d.watch_take"
    bl_label = "Watch"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if estimate_image() is None:
            cls.poll_message_set(iface_("There is no image yet: it comes with the first step of a final"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        open_image(context, estimate_image())
        return {"FINISHED"}


CLASSES = (EX4D_OT_watch_take,)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _shown.clear()


HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Show estimates as they arrive."""
    scheduler.every_tick(show_estimates, LIVE_SECONDS)
