"""Chooses the Blender scene whose sequencer takes go to, so that they do not change what the working scene renders.

A strip in the working scene would be what F12 renders, since *Sequencer* is on in Output > Post Processing. So takes go
to an edit scene: the one that the artist has pinned in the workspace (from Blender 5.0 on), else one of our own. Strips
that version 0.1 put into the working scene stay there.
"""

from __future__ import annotations

from typing import Any

import bpy

from ..blender_types import Context, current_context
from ..cameras.optics import render_size
from ..jobs.records import own_scenes
from .strip_api import Strip, all_strips_in
from .strips import find_strip, strips_of_take

EDIT_SCENE = "EX-4D Edit"
_RENDER = ("fps", "fps_base", "pixel_aspect_x", "pixel_aspect_y")

PROPERTIES = (
    (
        bpy.types.Scene,
        "ex4d_edit_scene",
        bpy.props.PointerProperty(
            name="Edit Scene",
            description="Scene whose sequencer gets this scene's takes",
            type=bpy.types.Scene,
            poll=lambda self, candidate: candidate != self and candidate.library is None,
        ),
    ),
)


def edit_scene_of(blender_scene: Any) -> bpy.types.Scene:
    """The scene whose sequencer gets the takes of a working scene; created if it is missing."""
    edit = _pinned(blender_scene) or blender_scene.ex4d_edit_scene
    if edit is None or edit.library is not None or edit == blender_scene or edit not in own_scenes():
        edit = _new_edit_scene(blender_scene)
    if blender_scene.ex4d_edit_scene != edit:
        blender_scene.ex4d_edit_scene = edit
    pin(edit, blender_scene)
    return edit


def cut_scene(context: Context) -> bpy.types.Scene:
    """The scene whose sequencer is open; from Blender 5.0 on a workspace may show another scene's sequencer."""
    return getattr(context, "sequencer_scene", None) or context.scene


def scenes_with_take(key: str) -> list[bpy.types.Scene]:
    """The scenes in whose sequencers a take has a strip."""
    return [scene for scene in own_scenes() if find_strip(scene, key) is not None]


def strip_in_file(key: str) -> Strip | None:
    """The first strip of a take in any scene, or None."""
    return next((find_strip(scene, key) for scene in scenes_with_take(key)), None)


def all_strips_of_take(key: str) -> list[Strip]:
    """All strips of a take in all scenes, with its sound and speed effects."""
    return [strip for scene in own_scenes() for strip in strips_of_take(scene, key)]


def workspaces_choose_scenes() -> bool:
    """Whether workspaces choose the scene that sequencers show, as from Blender 5.0 on; before, it is the window's."""
    return "sequencer_scene" in bpy.types.WorkSpace.bl_rna.properties


def pin(edit: bpy.types.Scene, blender_scene: bpy.types.Scene) -> None:
    """Let the sequencers of this working scene's workspaces show its edit scene, where they show nothing else."""
    if not workspaces_choose_scenes():
        return
    windows = current_context().window_manager.windows
    seen: list[Any] = [window.workspace for window in windows if window.scene == blender_scene]
    seen += [one for one in bpy.data.workspaces if one not in seen and _has_sequencer(one)]
    for workspace in seen:
        # The working scene itself is shown where version 0.1 pinned it; with strips it is the artist's choice.
        if workspace.sequencer_scene is None or (
            workspace.sequencer_scene == blender_scene and not has_pictures(blender_scene)
        ):
            workspace.sequencer_scene = edit


def has_pictures(scene: bpy.types.Scene) -> bool:
    """Whether a scene's sequencer has anything but sound, which is what makes Blender render it."""
    editor = scene.sequence_editor
    return editor is not None and any(strip.type != "SOUND" for strip in all_strips_in(editor))


def _pinned(blender_scene: bpy.types.Scene) -> bpy.types.Scene | None:
    """The edit scene that the artist has pinned in the workspace of a window with the working scene, or None."""
    for window in current_context().window_manager.windows:
        pinned = getattr(window.workspace, "sequencer_scene", None)
        if window.scene == blender_scene and pinned in own_scenes() and _is_edit_scene(pinned, blender_scene):
            return pinned
    return None


def _is_edit_scene(scene: bpy.types.Scene, blender_scene: bpy.types.Scene) -> bool:
    """Whether takes change nothing that a scene renders: it has no camera, or renders its sequencer anyway."""
    return scene != blender_scene and (scene.camera is None or has_pictures(scene))


def _has_sequencer(workspace: bpy.types.WorkSpace) -> bool:
    return any(area.type == "SEQUENCE_EDITOR" for screen in workspace.screens for area in screen.areas)


def _new_edit_scene(blender_scene: bpy.types.Scene) -> bpy.types.Scene:
    """An edit scene with the working scene's rate, size and frames, which shows takes as they are in their files."""
    edit: Any = bpy.data.scenes.new(EDIT_SCENE)
    for name in _RENDER:
        setattr(edit.render, name, getattr(blender_scene.render, name))
    edit.render.resolution_x, edit.render.resolution_y = render_size(blender_scene.render)
    edit.render.resolution_percentage = 100
    edit.frame_start, edit.frame_end = blender_scene.frame_start, blender_scene.frame_end
    edit.frame_current = blender_scene.frame_current
    edit.view_settings.view_transform = "Standard"
    edit.sync_mode = "AUDIO_SYNC"
    edit.sequence_editor_create()
    return edit
