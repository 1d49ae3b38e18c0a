"""Opens a take's result: in a sequencer's preview that is open, else in an Image Editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ex4d_core.errors import RequestError
from ex4d_core.take_files import frame_file_name

from ..blender_types import Context
from ..paths import from_blend
from ..scenes.color_space import tag_as_filmed
from ..sequencer.edit_scenes import strip_in_file, workspaces_choose_scenes
from ..sequencer.strip_api import end_of, start_of
from ..views.images import open_image
from .properties import EX4D_Take, take_name
from .take_jobs import MOVIE
from .versions import show_version


def show_result(context: Context, record: EX4D_Take) -> None:
    """Show a take: its strip in an open sequencer preview, else its movie, or the frames that are there, as an image.

    Raises:
        RequestError: no frame of it has arrived.
    """
    strip = strip_in_file(record.key)
    scene: Any = None if strip is None else strip.id_data
    editor = None if strip is None else sequencer_preview(context, scene)
    if strip is None or editor is None:
        show_as_image(context, record)
        return
    show_version(record)
    window, area = editor
    if getattr(window.workspace, "sequencer_scene", scene) != scene:
        window.workspace.sequencer_scene = scene
    space: Any = area.spaces.active
    if space.view_type == "SEQUENCER":
        space.view_type = "SEQUENCER_PREVIEW"
    scene.sequence_editor.active_strip = strip.parent_meta() or strip  # the header has its versions
    if not start_of(strip) <= scene.frame_current < end_of(strip):
        scene.frame_current = start_of(strip)
    area.tag_redraw()


def sequencer_preview(context: Context, scene: bpy.types.Scene) -> tuple[bpy.types.Window, bpy.types.Area] | None:
    """An open sequencer that shows a scene's strips, or may: first one with a preview, the largest of its kind.

    From Blender 5.0 on workspaces choose the scene that sequencers show; before, it is the window's.
    """
    chooses = workspaces_choose_scenes()
    editors = [
        (area.spaces.active.view_type != "SEQUENCER", area.width * area.height, window, area)
        for window in context.window_manager.windows
        if chooses or window.scene == scene
        for area in window.screen.areas
        if isinstance(area.spaces.active, bpy.types.SpaceSequenceEditor)
    ]
    if not editors:
        return None
    _, _, window, area = max(editors, key=lambda one: one[:2])
    return window, area


def show_as_image(context: Context, record: EX4D_Take) -> None:
    """Show a take's movie in an Image Editor, or as many frames as there are.

    Raises:
        RequestError: no results have arrived.
    """
    folder = from_blend(record.folder, record.id_data.library)
    movie, first = folder / MOVIE, folder / frame_file_name(0)
    image = _image_of(movie if movie.is_file() else first, take_name(record))
    tag_as_filmed(context.scene, image)
    open_image(context, image)
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            space = area.spaces.active
            if isinstance(space, bpy.types.SpaceImageEditor) and space.image == image:
                user = space.image_user
                user.frame_start, user.frame_duration, user.frame_offset = record.frame_start, record.frames, 0
                user.use_auto_refresh = True


def _image_of(path: Path, name: str) -> bpy.types.Image:
    """The image datablock of a movie, or of the sequence that a first frame begins; a new one gets the name.

    Raises:
        RequestError: the file is not there.
    """
    if not path.is_file():
        raise RequestError(f"no frames of this take are in {path.parent} yet; wait for the first, or press Resume")
    # Blender's own check for existing images passes over movies that are in use.
    for image in bpy.data.images:
        if image.filepath and image.library is None and from_blend(image.filepath) == path:
            return image
    image = bpy.data.images.load(str(path))
    image.name = name
    if path.name != MOVIE:
        image.source = "SEQUENCE"
    return image
