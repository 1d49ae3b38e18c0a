"""Small pictures of takes for the list: the first frame of each, read by Blender when it is first drawn."""

from __future__ import annotations

import bpy
import bpy.utils.previews

from ex4d_core.takes import frame_file_name

from ..paths import from_blend
from .properties import EX4D_Take

_previews: bpy.utils.previews.ImagePreviewCollection | None = None


def thumbnail(entry: EX4D_Take) -> int:
    """Number of the icon that shows a take; 0 while it has no frame."""
    if _previews is None or (not entry.last_event and entry.state != "done"):
        return 0
    known = _previews.get(entry.key)
    if known is None:
        picture = from_blend(entry.folder) / frame_file_name(0)
        if not picture.is_file():
            return 0
        known = _previews.load(entry.key, str(picture), "IMAGE")
    return known.icon_id


def register() -> None:
    global _previews
    _previews = bpy.utils.previews.new()


def unregister() -> None:
    global _previews
    if _previews is not None:
        bpy.utils.previews.remove(_previews)
    _previews = None
