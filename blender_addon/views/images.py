"""Shows images that the backend sends in image datablocks and Image Editors, without files."""

from __future__ import annotations

import bpy

_DRAWN_SECONDS = 0.3


def show_image(name: str, data: bytes) -> bpy.types.Image:
    """Put an image (bytes of a JPEG or PNG file) into the image datablock of that name."""
    image = bpy.data.images.get(name)
    if image is None:
        image = bpy.data.images.new(name, 1, 1)
    # Another source and back makes Blender drop the pixels it had decoded; reload() would complain of a missing file.
    image.source = "GENERATED"
    image.pack(data=data, data_len=len(data))
    image.source = "FILE"
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR" and area.spaces.active.image == image:
                area.tag_redraw()
    return image


def open_image(context: bpy.types.Context, image: bpy.types.Image) -> None:
    """Show an image in an Image Editor, as large as fits: one that shows it, one that is open, or a new window."""
    windows = context.window_manager.windows
    editors = [(one, area) for one in windows for area in one.screen.areas if area.type == "IMAGE_EDITOR"]
    if any(area.spaces.active.image == image for _, area in editors):
        return
    if not editors:
        bpy.ops.wm.window_new()
        editors = [(windows[-1], windows[-1].screen.areas[0])]
        editors[0][1].type = "IMAGE_EDITOR"
    window, area = editors[0]
    area.spaces.active.image = image
    # A new window has no size before it is drawn.
    bpy.app.timers.register(lambda: _fit(window, area), first_interval=_DRAWN_SECONDS)


def _fit(window: bpy.types.Window, area: bpy.types.Area) -> None:
    if window not in bpy.context.window_manager.windows[:] or area not in window.screen.areas[:]:
        return  # closed again
    region = next(one for one in area.regions if one.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        if bpy.ops.image.view_all.poll():
            bpy.ops.image.view_all(fit_view=True)
