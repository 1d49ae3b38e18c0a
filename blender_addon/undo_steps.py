"""Adds undo steps for changes that Blender adds none for by itself."""

from __future__ import annotations

import bpy

from .blender_types import current_context, ops


def add_undo_step(what: str) -> None:
    """Make all changes since the last undo step one that the artist can undo; Blender then asks to save the file, too.

    For operators, and for steps of `scheduler.run_when_idle`: during a transform or a render the step would hold half
    of what is going on. In the background, where nobody presses Ctrl Z, it only continues the history of a script that
    has begun one. Blender would begin it in this call, without the state before, as it never does with a window; the
    module bpy 4.5 has crashed there.

    Args:
        what: its name in Blender's list of undo steps.
    """
    if bpy.app.background and not ops.ed.undo_history.poll():
        return
    context = current_context()
    windows = context.window_manager.windows
    if windows:
        with context.temp_override(window=context.window or windows[0]):  # a timer has none
            ops.ed.undo_push(message=what)
