"""Sidebar: footage to reconstruct, and the progress of reconstructions."""

from __future__ import annotations

import bpy

from ex4d_core.remote_job import JobState

from ..blender_types import SidebarPanel
from ..connection.panel import draw_text
from ..jobs.progress import paused_text, progress_text, state_icon, state_text
from ..jobs.tracker import can_cancel, can_resume
from ..scenes.panel import EX4D_PT_scene
from .operators import (
    EX4D_OT_cancel_reconstruction,
    EX4D_OT_forget_reconstruction,
    EX4D_OT_reconstruct,
    EX4D_OT_resume_reconstruction,
    EX4D_OT_use_movie_strip,
)
from .properties import EX4D_Reconstruction


class EX4D_PT_footage(SidebarPanel, bpy.types.Panel):
    """Chooses footage and depth, and lists reconstructions."""

    bl_label = "From Footage"
    bl_parent_id = EX4D_PT_scene.__name__
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.ex4d_footage
        row = layout.row(align=True)
        row.prop(settings, "footage", text="", placeholder="Video, or drop it here")
        row.operator(EX4D_OT_use_movie_strip.bl_idname, text="", icon="SEQUENCE")
        if bpy.data.movieclips:
            layout.prop(settings, "clip", text="Clip")
        layout.prop(settings, "depth_from", expand=True)
        if settings.depth_from == "FILES":
            layout.prop(settings, "depth", text="", placeholder="Depth: .npz, EXR or PNG")
        else:
            layout.prop(settings, "estimator")
        layout.operator(EX4D_OT_reconstruct.bl_idname, icon="MOD_REMESH")
        for record in reversed(context.scene.ex4d_reconstructions):
            if record.state != JobState.IMPORTED:
                _draw_reconstruction(layout.box(), record, context)


class EX4D_PT_footage_options(SidebarPanel, bpy.types.Panel):
    """Settings of depth and camera."""

    bl_label = "Depth and Camera"
    bl_parent_id = EX4D_PT_footage.__name__
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        # Labels stand inside the fields, where they fit a narrow sidebar.
        layout, settings = self.layout, context.scene.ex4d_footage
        if settings.depth_from == "FILES":
            _draw_optional(layout, settings, "use_scale", "scale")
            if not settings.use_mist:
                layout.prop(settings, "inverse")
            layout.prop(settings, "far")
            layout.prop(settings, "use_mist")
            if settings.use_mist:
                column = layout.column(align=True)
                column.prop(settings, "mist_start")
                column.prop(settings, "mist_depth")
                column.prop(settings, "mist_falloff")
        layout.prop(settings, "camera_from", text="")
        if settings.camera_from == "FILE":
            _draw_optional(layout, settings, "use_fov", "fov")
            layout.prop(settings, "camera", text="", placeholder="Camera file, if it moved")
        else:
            _draw_camera_of_blender(layout, settings)
        if settings.camera or settings.camera_from != "FILE":
            layout.prop(settings, "camera_scale")


def _draw_camera_of_blender(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """A solved clip's camera, or a camera object, which may have been tracked in a clip, too."""
    if settings.camera_from == "OBJECT":
        layout.prop(settings, "camera_object", text="")
        layout.prop(settings, "camera_start")
    if settings.clip is not None:
        layout.prop(settings, "undistort")
    elif settings.camera_from == "CLIP":
        layout.label(text="Choose a movie clip above", icon="ERROR")


def _draw_optional(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, use: str, name: str) -> None:
    row = layout.row(align=True)
    row.prop(settings, use, text="")
    value = row.row(align=True)
    value.enabled = getattr(settings, use)
    value.prop(settings, name)


def _draw_reconstruction(layout: bpy.types.UILayout, record: EX4D_Reconstruction, context: bpy.types.Context) -> None:
    row = layout.row(align=True)
    row.label(text=f"{record.label}: {state_text(record)}", translate=False, icon=state_icon(record))
    if can_resume(record):
        row.operator(EX4D_OT_resume_reconstruction.bl_idname, text="", icon="FILE_REFRESH").key = record.key
    if can_cancel(record):
        row.operator(EX4D_OT_cancel_reconstruction.bl_idname, text="", icon="CANCEL").key = record.key
        layout.progress(factor=record.progress, type="BAR", text=progress_text(record))
    else:
        row.operator(EX4D_OT_forget_reconstruction.bl_idname, text="", icon="TRASH").key = record.key
    if text := paused_text(record):
        draw_text(layout, text, context)
    elif record.reason:
        draw_text(layout, record.reason, context)


CLASSES = (EX4D_PT_footage, EX4D_PT_footage_options)
