"""Thumbnails of takes for the list, read by Blender when they are first drawn.

They show the middle of each take's move; until that has arrived the first frame, and before there is one the estimate
that forms while it is denoised.
"""

from __future__ import annotations

import bpy
import bpy.utils.previews

from ex4d_core.remote_job import JobState
from ex4d_core.take_files import ESTIMATE_FILE, frame_file_name

from ..paths import from_blend
from .properties import EX4D_Take

_previews: bpy.utils.previews.ImagePreviewCollection | None = None
# When the estimates that are shown were written, in nanoseconds.
_estimates: dict[str, int] = {}


def thumbnail(entry: EX4D_Take) -> int:
    """Number of the icon that shows a take; 0 while it has no frame."""
    if _previews is None or (not entry.last_event and entry.state != JobState.DONE):
        return 0
    for index in (entry.frames // 2, 0):
        name = f"{entry.key} {index}"
        known = _previews.get(name)
        if known is not None:
            return known.icon_id
        image = from_blend(entry.folder) / frame_file_name(index)
        if image.is_file():
            return _previews.load(name, str(image), "IMAGE").icon_id
    return _estimate(_previews, entry)


def has_frames(entry: EX4D_Take) -> bool:
    """Whether any frame of a take has arrived."""
    return entry.last_event > 0 and (from_blend(entry.folder) / frame_file_name(0)).is_file()


def _estimate(previews: bpy.utils.previews.ImagePreviewCollection, entry: EX4D_Take) -> int:
    """Number of the icon that shows the newest estimate of a take; 0 before the first."""
    path = from_blend(entry.folder) / ESTIMATE_FILE
    try:
        written = path.stat().st_mtime_ns
    except OSError:
        return 0
    name = f"{entry.key} estimate"
    if _estimates.get(name) != written:
        _estimates[name] = written
        previews.pop(name, None)
        # Asking for its sizes has Blender read it now: it is small, and read later it would give way to the next one
        # before it was ever seen.
        preview = previews.load(name, str(path), "IMAGE", force_reload=True)
        _ = tuple(preview.image_size), tuple(preview.icon_size)
    return previews[name].icon_id


def register() -> None:
    """Begin without thumbnails."""
    global _previews
    _previews = bpy.utils.previews.new()


def unregister() -> None:
    """Free them."""
    global _previews
    if _previews is not None:
        bpy.utils.previews.remove(_previews)
    _estimates.clear()
    _previews = None
