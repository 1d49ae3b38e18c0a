"""Sidebar: buttons for takes, the list of takes, and details of the marked one."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.remote_job import JobState

from ..blender_types import SidebarPanel
from ..connection.panel import BOX_MARGIN, draw_problem, draw_text
from ..jobs.progress import paused_text, progress_text, state_icon, state_text
from ..jobs.tracker import can_cancel, can_resume, can_retry
from ..projects.deletion import EX4D_OT_delete_take_files
from ..projects.folders import project_folder
from ..sequencer.edit_scenes import strip_in_file
from ..sequencer.strips import are_same_rates, rate_of
from ..shots.final_settings import FINAL_ENGINE
from ..shots.properties import active_shot
from .operators import (
    EX4D_OT_cancel_take,
    EX4D_OT_forget_take,
    EX4D_OT_place_take,
    EX4D_OT_restore_take,
    EX4D_OT_resume_take,
    EX4D_OT_retry_take,
    EX4D_OT_send_final,
    EX4D_OT_send_take,
    EX4D_OT_show_result,
    EX4D_OT_show_take,
    EX4D_OT_watch_take,
)
from .properties import EX4D_Take, active_take, newest_take, take_name, takes_of_shot
from .thumbnails import has_frames, thumbnail
from .workspace import EX4D_OT_open_workspace


class EX4D_PT_take(SidebarPanel, bpy.types.Panel):
    """Buttons that send the active shot."""

    bl_label = "Take"
    bl_order = 4

    def draw(self, context: bpy.types.Context) -> None:
        layout, shot = self.layout, active_shot(context.scene)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shot, "label")
        row = layout.row(align=True)
        row.scale_y = 1.4
        row.operator(EX4D_OT_send_take.bl_idname, icon="RENDER_ANIMATION")
        row.operator(EX4D_OT_send_final.bl_idname, icon="SHADERFX")
        newest = newest_take(context.scene)
        row = layout.row(align=True)
        # Always there, so that no other button moves when a take arrives.
        row.operator(EX4D_OT_show_result.bl_idname, icon="PLAY").key = newest.key if newest is not None else ""
        row.operator(EX4D_OT_open_workspace.bl_idname, text="", icon="WORKSPACE")
        if not context.blend_data.filepath:
            text = iface_("This file is not saved: its takes go to {folder}. Save it to keep them beside it")
            draw_text(layout, text.format(folder=project_folder()), context, "INFO")
            layout.operator("wm.save_mainfile", text="Save File", icon="FILE_TICK")


class EX4D_UL_takes(bpy.types.UIList):
    """The takes of a scene, with their progress."""

    def draw_item(self, context, layout, data, item: EX4D_Take, icon, active_data, active_property, index) -> None:
        row = layout.row(align=True)
        image = thumbnail(item)
        shown = {"icon_value": image} if image else {"icon": "SEQUENCE"}
        row.label(text=take_name(item), translate=False, **shown)
        if can_cancel(item):
            row.progress(factor=item.progress, type="BAR", text=state_text(item))
            row.operator(EX4D_OT_cancel_take.bl_idname, text="", icon="CANCEL", emboss=False).key = item.key
            return
        if (strip := strip_in_file(item.key)) is not None:
            eye = "HIDE_ON" if strip.mute else "HIDE_OFF"
            row.operator(EX4D_OT_show_take.bl_idname, text="", icon=eye, emboss=False).key = item.key
        row.label(text="", icon=state_icon(item))

    def filter_items(self, context, data, property_name):
        """Those whose name matches the list's search, and of the active shot alone if the artist wants that."""
        takes = getattr(data, property_name)
        flags = bpy.types.UI_UL_list.filter_items_by_name(
            self.filter_name, self.bitflag_filter_item, takes, "name", reverse=self.use_filter_invert
        ) or [self.bitflag_filter_item] * len(takes)
        if data.ex4d_takes_of_shot:
            shot = active_shot(data).key
            flags = [flag if take.shot == shot else 0 for flag, take in zip(flags, takes, strict=True)]
        return flags, []


class EX4D_PT_takes(SidebarPanel, bpy.types.Panel):
    """The list of takes, and the marked one in detail."""

    bl_label = "Takes"
    bl_order = 5

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return len(context.scene.ex4d_takes) > 0

    def draw(self, context: bpy.types.Context) -> None:
        layout, scene = self.layout, context.scene
        layout.prop(scene, "ex4d_takes_of_shot")
        layout.template_list(EX4D_UL_takes.__name__, "", scene, "ex4d_takes", scene, "ex4d_take_index", rows=3)
        entry = active_take(scene)
        if entry is not None:
            _draw_details(layout.box().column(), entry, context)


def _draw_details(layout: bpy.types.UILayout, entry: EX4D_Take, context: bpy.types.Context) -> None:
    image = thumbnail(entry)
    if image:
        layout.template_icon(icon_value=image, scale=4.0)
    _draw_boxed(layout, take_name(entry), context, state_icon(entry))
    under_way = can_cancel(entry)
    # This and all buttons are there in every state, so that none moves under the mouse when a take ends.
    text = progress_text(entry, entry.engine) if under_way else state_text(entry)
    layout.progress(factor=entry.progress if under_way else 1.0, type="BAR", text=text)
    if made_with := settings_text(entry):
        _draw_boxed(layout, made_with, context)
    for text in rate_texts(entry):
        _draw_boxed(layout, text, context, "INFO")
    strip = strip_in_file(entry.key)
    # At most two buttons with words in a row, which fit a narrow sidebar.
    row = layout.row(align=True)
    _add_button(row, EX4D_OT_cancel_take, entry, "CANCEL", under_way, "Cancel")
    _add_button(row, EX4D_OT_resume_take, entry, "PLAY", can_resume(entry), "Resume")
    row = layout.row(align=True)
    _add_button(row, EX4D_OT_retry_take, entry, "FILE_REFRESH", can_retry(entry), "Retry")
    _add_button(row, EX4D_OT_forget_take, entry, "X", not under_way, "Remove")
    _add_button(layout, EX4D_OT_delete_take_files, entry, "TRASH", not under_way, "Delete Files")
    _add_button(layout, EX4D_OT_show_result, entry, "PLAY", has_frames(entry))
    if entry.engine == FINAL_ENGINE:
        _add_button(layout, EX4D_OT_watch_take, None, "IMAGE_DATA", under_way)
    hidden = strip is not None and strip.mute and len(takes_of_shot(entry.id_data, entry.shot)) > 1
    _add_button(layout, EX4D_OT_show_take, entry, "HIDE_OFF", hidden)
    missing = not under_way and strip is None and has_frames(entry)
    _add_button(layout, EX4D_OT_place_take, entry, "SEQ_SEQUENCER", missing)
    layout.operator(EX4D_OT_restore_take.bl_idname, icon="LOOP_BACK").key = entry.key
    if text := paused_text(entry):
        _draw_boxed(layout, text, context, "INFO")
    elif entry.reason:
        draw = draw_problem if entry.state in (JobState.FAILED, JobState.STOPPED) else draw_text
        draw(layout, entry.reason, context, "INFO", margin=BOX_MARGIN)


def _draw_boxed(layout: bpy.types.UILayout, text: str, context: bpy.types.Context, icon: str = "NONE") -> None:
    draw_text(layout, text, context, icon, margin=BOX_MARGIN)


def _add_button(
    layout: bpy.types.UILayout,
    operator: Any,
    entry: EX4D_Take | None,
    icon: str,
    enabled: bool,
    text: str | None = None,
) -> None:
    """A button that is always there, and may be disabled; for a take, or for none in particular."""
    place = layout.row(align=True)
    place.enabled = enabled
    label = {} if text is None else {"text": text}
    pressed = place.operator(operator.bl_idname, icon=icon, **label)
    if entry is not None:
        pressed.key = entry.key


def settings_text(entry: EX4D_Take) -> str:
    """What distinguishes the finals of a shot, in a few words; "" for a preview."""
    if entry.engine != FINAL_ENGINE or entry.seed < 0:
        return ""
    text = iface_("Seed {seed}, {steps} steps, guidance {guidance}")
    text = text.format(seed=entry.seed, steps=entry.steps, guidance=f"{entry.guidance:g}")
    return f"{text}, {entry.arithmetic}" if entry.arithmetic else text


def rate_texts(entry: EX4D_Take) -> list[str]:
    """What to know of a take whose footage, Blender scene or edit scene differ in frame rate, if only by rounding."""
    strip = strip_in_file(entry.key)
    rates = [
        (iface_("footage"), entry.footage_fps, iface_("scene"), entry.fps, True),
        (iface_("take"), entry.fps, iface_("sequencer"), rate_of(strip.id_data) if strip else 0.0, False),
    ]
    texts = []
    for what, own, where, rate, by_frame in rates:
        if not own or not rate or abs(own / rate - 1.0) < 1e-5:  # Blender keeps rates as 32-bit numbers
            continue
        text = iface_("The {what} has {own} fps, the {where} {rate}: ").format(
            what=what, own=f"{own:.5g}", where=where, rate=f"{rate:.5g}"
        )
        if are_same_rates(own, rate):
            text += iface_("shown frame by frame, {percent} % off in speed").format(
                percent=f"{100 * abs(rate / own - 1):.2g}"
            )
        elif by_frame:
            text += iface_(
                "viewport and take show one of its frames in each frame, at {percent} % of its speed; set the scene's "
                "Frame Rate to {own} to see it as filmed"
            ).format(percent=f"{100 * rate / own:.4g}", own=f"{own:.5g}")
        else:
            text += iface_("a speed effect keeps its duration")
        texts.append(text)
    return texts


CLASSES = (EX4D_PT_take, EX4D_UL_takes, EX4D_PT_takes)
