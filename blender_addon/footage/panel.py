"""Sidebar: footage to reconstruct, and the progress of reconstructions."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ex4d_core.plain_text import plain_line
from ex4d_core.remote_job import JobState

from ..blender_types import SidebarPanel
from ..busy import reason_to_wait
from ..connection.panel import BOX_MARGIN, draw_problem, draw_text
from ..connection.session import session
from ..jobs.progress import paused_text, progress_text, state_icon, state_text
from ..jobs.tracker import can_cancel, can_resume, tracker
from ..paths import in_words
from ..scenes.panel import EX4D_PT_scene
from ..translations import CONTEXT
from .field_names import in_field_names
from .lens import draw_lens_fields, lens_text
from .operators import (
    EX4D_OT_cancel_reconstruction,
    EX4D_OT_cancel_weights,
    EX4D_OT_fetch_weights,
    EX4D_OT_forget_reconstruction,
    EX4D_OT_reconstruct,
    EX4D_OT_resume_reconstruction,
    EX4D_OT_use_movie_strip,
)
from .properties import EX4D_Reconstruction
from .weights import weights, why_forbidden


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
            layout.prop(settings, "clip", text="Clip", text_ctxt=CONTEXT)
        layout.prop(settings, "depth_from", expand=True)
        if settings.depth_from == "FILES":
            layout.prop(settings, "depth", text="", placeholder="Depth: .npz, EXR or PNG")
        else:
            layout.prop(settings, "estimator_choice", text="")
            _draw_weights(layout, settings.estimator, context)
        draw_text(layout, lens_text(settings), context, "CAMERA_DATA")
        layout.operator(EX4D_OT_reconstruct.bl_idname, icon="MOD_REMESH")
        for record in reversed(context.scene.ex4d_reconstructions):
            # Those that were imported meanwhile stay until the artist removes them.
            if record.state != JobState.IMPORTED or record.key in tracker.followed:
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
            is_disparity = settings.values == "disparity" and not settings.use_mist
            if not settings.use_mist:
                layout.prop(settings, "values")
            if not is_disparity:
                layout.prop(settings, "use_scale")
                value = layout.row()
                value.enabled = settings.use_scale
                value.prop(settings, "scale", text="Scale")
            if not (settings.use_mist or is_disparity):
                layout.prop(settings, "inverse")
            layout.prop(settings, "far")
            layout.prop(settings, "use_mist")
            if settings.use_mist:
                column = layout.column(align=True)
                column.prop(settings, "mist_start")
                column.prop(settings, "mist_depth")
                column.prop(settings, "mist_falloff")
        layout.prop(settings, "use_offset")
        value = layout.row()
        value.enabled = settings.use_offset
        value.prop(settings, "offset", text="Offset")
        layout.prop(settings, "far_limit")
        if settings.is_deep or settings.bit_depth != "8":
            layout.prop(settings, "bit_depth")
            if settings.bit_depth != "8":
                layout.prop(settings, "input_space", text="", placeholder="Input Space")
                layout.prop(settings, "working_space", text="", placeholder="Working Space")
        layout.prop(settings, "mask", text="", placeholder="Motion mask: white moves")
        layout.prop(settings, "camera_from", text="")
        if settings.camera_from == "FILE":
            _draw_lens(layout, settings)
            layout.prop(settings, "camera", text="", placeholder="Camera file")
            if settings.camera:
                layout.prop(settings, "camera_gaps")
            if settings.depth_from == "ESTIMATOR" and not settings.camera:
                layout.prop(settings, "use_poses")
        elif settings.camera_from == "SOLVE":
            _draw_solve(layout, settings, context)
        else:
            _draw_camera_of_blender(layout, settings)
        if settings.camera_from in ("CLIP", "OBJECT") or (settings.camera_from == "FILE" and settings.camera):
            layout.prop(settings, "camera_scale", text="Scale")
            layout.prop(settings, "camera_fit")


def _draw_lens(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    layout.prop(settings, "use_fov")
    lens = layout.column(align=True)
    lens.enabled = settings.use_fov
    draw_lens_fields(lens, settings)


def _draw_solve(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, context: bpy.types.Context) -> None:
    """The lens of a camera that the backend solves for, if it is known, and what the backend lacks for that."""
    _draw_lens(layout, settings)
    if settings.clip is not None:
        layout.prop(settings, "undistort")
    server = session().server
    if server is not None and (reason := server.lacking.get("solve")):
        draw_problem(layout, reason, context)


def _draw_camera_of_blender(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """A solved clip's camera, or a camera object, which may have been tracked in a clip, too."""
    if settings.camera_from == "OBJECT":
        layout.prop(settings, "camera_object", text="")
        layout.prop(settings, "camera_start")
    if settings.clip is not None:
        layout.prop(settings, "undistort")
    elif settings.camera_from == "CLIP":
        layout.label(text="Choose a movie clip above", icon="ERROR")


def _draw_weights(layout: bpy.types.UILayout, estimator: str, context: bpy.types.Context) -> None:
    """Why the chosen estimator cannot be used on the backend, and the button that fetches its weights there."""
    part = weights.find(estimator)
    if part is None:
        return
    if forbidden := why_forbidden(part):
        draw_text(layout, forbidden, context, "ERROR")
        return
    if part.lacks:
        draw_problem(layout, part.lacks, context)
    if part.state == "here":
        return
    if part.state == "fetching":
        text = iface_("{done} of {size}").format(done=in_words(part.done), size=in_words(part.bytes))
        row = layout.row(align=True)
        row.progress(factor=min(part.done / max(part.bytes, 1), 1.0), type="BAR", text=text)
        row.operator(EX4D_OT_cancel_weights.bl_idname, text="", icon="CANCEL").part = part.name
        return
    text = iface_("The backend lacks {name}: {size}. License: {licence}")
    text = text.format(name=part.title, size=in_words(part.bytes), licence=part.licence)
    draw_text(layout, text, context, "INFO")
    if weights.allowed:
        label = iface_("Resume") if part.done else iface_("Fetch on Backend")
        layout.operator(EX4D_OT_fetch_weights.bl_idname, text=label, icon="IMPORT").part = part.name
    else:
        draw_text(layout, mark_("This backend leaves that to its operator; or choose depth files"), context)
    if problem := part.reason or weights.problem:
        draw_problem(layout, in_field_names(problem), context)


def _draw_reconstruction(layout: bpy.types.UILayout, record: EX4D_Reconstruction, context: bpy.types.Context) -> None:
    """Two rows in every state, so that no button below moves when a reconstruction ends."""
    row = layout.row(align=True)
    row.label(text=plain_line(record.label), translate=False, icon=state_icon(record))
    under_way = can_cancel(record)
    for operator, icon, enabled in (
        (EX4D_OT_resume_reconstruction, "FILE_REFRESH", can_resume(record)),
        (EX4D_OT_cancel_reconstruction, "CANCEL", under_way),
        (EX4D_OT_forget_reconstruction, "TRASH", not under_way),
    ):
        place = row.row(align=True)
        place.enabled = enabled
        place.operator(operator.bl_idname, text="", icon=icon).key = record.key
    text = progress_text(record) if under_way else state_text(record)
    layout.progress(factor=record.progress if under_way else 1.0, type="BAR", text=text)
    waiting = reason_to_wait() if record.state == JobState.DONE else ""
    if record.state in (JobState.FAILED, JobState.STOPPED) and record.reason:
        draw_problem(layout, in_field_names(record.reason), context, margin=BOX_MARGIN)
    elif text := paused_text(record) or record.reason or waiting:
        draw_text(layout, text, context, margin=BOX_MARGIN)


CLASSES = (EX4D_PT_footage, EX4D_PT_footage_options)
