"""Operators that make passes, and work on listed ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.output_settings import OutputSettings
from ex4d_core.passes import PassesRequest

from ..blender_types import Context, Operator
from ..errors import reports_errors
from ..jobs.operators import CancelsJob, ForgetsJob, OnJob, ResumesJob
from ..projects.asking import AsksForProjectFolder
from ..shots.objects import NeedsShot, shot_cuts, shot_objects
from ..shots.properties import active_shot, key_of
from ..shots.source_time import source_frames_of
from ..takes.requests import build_request, file_stem, shot_range
from .color_spaces import require_known
from .pass_jobs import build_nodes, next_version, retry_passes, send_passes
from .properties import PASSES


class EX4D_OT_send_passes(AsksForProjectFolder, NeedsShot, Operator):
    """Render the shot on the backend as EXR files with alpha, depth and position, and add their compositor node."""

    bl_idname = "ex4d.send_passes"
    bl_label = "Passes for Compositing"
    bl_options = {"UNDO"}

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        self.use_project_folder()
        blender_scene, shot = context.scene, active_shot(context.scene)
        scene_object, camera = shot_objects(context)
        frame_start, frame_end = shot_range(blender_scene, scene_object)
        scene, request = build_request(
            scene_object,
            camera,
            frame_start,
            frame_end,
            source_frames=source_frames_of(shot, scene_object, frame_start, frame_end),
            label=shot.label,
            occlusion=shot.occlusion,
            samples=shot.samples,
            cuts=shot_cuts(context, frame_start, frame_end),
        )
        scene.deep_color()  # refused now where there is none
        space = shot.output_space or scene.manifest.color_space
        require_known(space)
        key = key_of(shot)
        output = OutputSettings(
            format="exr",
            output_space=space,
            file_version=next_version(blender_scene, key),
            position=True,
            motion="both" if shot.use_motion else "none",
        )
        # Alpha is what this frame saw of the footage, unless the artist wants what the clip remembers, too.
        render = replace(request.render, remember=True if shot.memory == "on" else None)
        request = replace(request, render=render, output=output.named(file_stem(shot.label)))
        send_passes(scene, PassesRequest(request), frame_start, blender_scene, key)
        return {"FINISHED"}


class _OnPasses(OnJob):
    """An operator on the passes whose key it is given."""

    collection = PASSES


class EX4D_OT_cancel_passes(_OnPasses, CancelsJob, Operator):
    """Stop rendering these passes; images that have arrived stay."""

    bl_idname = "ex4d.cancel_passes"
    bl_label = "Cancel Passes"


class EX4D_OT_resume_passes(_OnPasses, ResumesJob, Operator):
    """Try again to send these passes, or to fetch their images."""

    bl_idname = "ex4d.resume_passes"
    bl_label = "Resume Passes"


class EX4D_OT_retry_passes(_OnPasses, Operator):
    """Send the same request again as a new job; its images replace the old ones."""

    bl_idname = "ex4d.retry_passes"
    bl_label = "Retry Passes"
    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        retry_passes(record)


class EX4D_OT_forget_passes(_OnPasses, ForgetsJob, Operator):
    """Remove these passes from the list; their node and files stay."""

    bl_idname = "ex4d.forget_passes"
    bl_label = "Remove Passes From List"
    bl_options = {"UNDO"}


class EX4D_OT_place_passes(_OnPasses, Operator):
    """Add the node of these passes to the compositor again, or update it: with the shot's newest take that fits."""

    bl_idname = "ex4d.place_passes"
    bl_label = "Put in Compositor"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls: Any, context: bpy.types.Context) -> bool:
        if not context.scene.ex4d_passes:
            cls.poll_message_set(iface_("This scene has no passes yet; press Passes for Compositing"))
            return False
        return True

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        build_nodes(record)


CLASSES = (
    EX4D_OT_send_passes,
    EX4D_OT_cancel_passes,
    EX4D_OT_resume_passes,
    EX4D_OT_retry_passes,
    EX4D_OT_forget_passes,
    EX4D_OT_place_passes,
)
