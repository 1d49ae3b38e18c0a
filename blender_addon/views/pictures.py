"""Pictures that the backend sends, in image datablocks and Image Editors; without files, and without a sound."""

from __future__ import annotations

import bpy


def show_picture(name: str, data: bytes) -> bpy.types.Image:
    """Put a picture (bytes of a JPEG or PNG file) into the image datablock of that name."""
    image = bpy.data.images.get(name)
    if image is None:
        image = bpy.data.images.new(name, 1, 1)
    # Another source and back makes Blender drop the picture it had decoded; reload() would miss a file, aloud.
    image.source = "GENERATED"
    image.pack(data=data, data_len=len(data))
    image.source = "FILE"
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR" and area.spaces.active.image == image:
                area.tag_redraw()
    return image


def open_picture(context: bpy.types.Context, image: bpy.types.Image) -> None:
    """Show an image in an Image Editor: one that shows it, one that is open, or a new window."""
    manager = context.window_manager
    editors = [area for window in manager.windows for area in window.screen.areas if area.type == "IMAGE_EDITOR"]
    if any(editor.spaces.active.image == image for editor in editors):
        return
    if not editors:
        bpy.ops.wm.window_new()
        editors = [manager.windows[-1].screen.areas[0]]
        editors[0].type = "IMAGE_EDITOR"
    editors[0].spaces.active.image = image
