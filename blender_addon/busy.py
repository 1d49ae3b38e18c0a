"""Tells whether the artist or Blender is in the middle of something, so that the add-on's own changes have to wait.

A change that arrives during a transform would become part of its undo step, or be lost when it is cancelled; one that
arrives during a render would show in the frames from there on. All work that changes data asks here first, mostly by
`scheduler.run_when_idle`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from .blender_types import current_context

# Jobs of Blender that read the file's data while they run.
_JOBS = {"RENDER": mark_("Render"), "OBJECT_BAKE": mark_("Bake")}
# What operators have that end with an undo step, or let nothing else happen. Others may run for as long as Blender
# does, as those do by which add-ons draw or show pressed keys.
_CHANGING = {"UNDO", "UNDO_GROUPED", "BLOCKING", "GRAB_CURSOR", "GRAB_CURSOR_X", "GRAB_CURSOR_Y"}


def reason_to_wait() -> str:
    """What a change has to wait for, for people: a modal operator in any window, or a render job; "" if nothing."""
    for job, name in _JOBS.items():
        if bpy.app.is_job_running(job):
            return _waits_for(iface_(name))
    operator = changing_operator(current_context().window_manager.windows)
    return _waits_for(iface_(operator.bl_label)) if operator is not None else ""


def changing_operator(windows: Iterable[bpy.types.Window]) -> Any:
    """A modal operator that runs in one of the windows and will change data; None if nothing does."""
    # Blender lists None for an operator whose add-on was disabled while it was running.
    running: Iterable[Any] = (one for window in windows for one in window.modal_operators if one is not None)
    return next((one for one in running if _CHANGING & set(getattr(one, "bl_options", ()))), None)


def _waits_for(name: str) -> str:
    return iface_("Waits for the end of: {name}").format(name=name)
