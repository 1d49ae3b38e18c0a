"""Side bar: how to make the take, the takes made so far, and what the marked one is at; progress in the status bar."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.jobs import LOAD_STAGE, WARM_UP_STAGE

from ..connection.errands import own_scenes
from ..connection.panel import CATEGORY, draw_problem, draw_text
from ..connection.session import session
from ..sequencer.strips import find_strip
from ..shots.final import FINAL_ENGINE
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
    EX4D_OT_show_take,
    can_cancel,
    can_resume,
    can_retry,
)
from .properties import EX4D_Take, active_take, takes_of_shot, version_name
from .showing import STOPPED
from .thumbnails import has_frames, thumbnail

_ICONS = {"done": "CHECKMARK", "failed": "ERROR", "stopped": "ERROR", "cancelled": "X", "running": "PLAY"}


class EX4D_PT_take(bpy.types.Panel):
    bl_label = "Take"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
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
        if not context.blend_data.filepath:
            text = iface_("This file is not saved: its takes go to the add-on's folder. Save it to keep them beside it")
            draw_text(layout, text, context, "INFO")
            layout.operator("wm.save_mainfile", text="Save File", icon="FILE_TICK")


class EX4D_UL_takes(bpy.types.UIList):
    def draw_item(self, context, layout, data, item: EX4D_Take, icon, active_data, active_property, index) -> None:
        row = layout.row(align=True)
        picture = thumbnail(item)
        shown = {"icon_value": picture} if picture else {"icon": "SEQUENCE"}
        row.label(text=take_name(item), translate=False, **shown)
        if can_cancel(item):
            row.progress(factor=item.progress, type="BAR", text=state_text(item))
            row.operator(EX4D_OT_cancel_take.bl_idname, text="", icon="CANCEL", emboss=False).key = item.key
            return
        if (strip := find_strip(item.id_data, item.key)) is not None:
            eye = "HIDE_ON" if strip.mute else "HIDE_OFF"
            row.operator(EX4D_OT_show_take.bl_idname, text="", icon=eye, emboss=False).key = item.key
        row.label(text="", icon=_ICONS.get(item.state, "SORTTIME"))


class EX4D_PT_takes(bpy.types.Panel):
    bl_label = "Takes"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 5

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return len(context.scene.ex4d_takes) > 0

    def draw(self, context: bpy.types.Context) -> None:
        layout, scene = self.layout, context.scene
        layout.template_list(EX4D_UL_takes.__name__, "", scene, "ex4d_takes", scene, "ex4d_take_index", rows=3)
        entry = active_take(scene)
        if entry is not None:
            _draw_details(layout.box().column(), entry, context)


def _draw_details(layout: bpy.types.UILayout, entry: EX4D_Take, context: bpy.types.Context) -> None:
    picture = thumbnail(entry)
    if picture:
        layout.template_icon(icon_value=picture, scale=4.0)
    layout.label(text=f"{take_name(entry)}: {state_text(entry)}", icon=_ICONS.get(entry.state, "SORTTIME"))
    if can_cancel(entry):
        layout.progress(factor=entry.progress, type="BAR", text=progress_text(entry))
    if made_with := settings_text(entry):
        layout.label(text=made_with, translate=False)
    if entry.reason:
        (draw_problem if entry.state in ("failed", STOPPED) else draw_text)(layout, entry.reason, context, "INFO")
    row = layout.row(align=True)
    if can_cancel(entry):
        row.operator(EX4D_OT_cancel_take.bl_idname, text="Cancel", icon="CANCEL").key = entry.key
        if entry.engine == FINAL_ENGINE:
            row.operator("ex4d.watch_take", icon="IMAGE_DATA")
    if can_resume(entry):
        row.operator(EX4D_OT_resume_take.bl_idname, text="Go On", icon="PLAY").key = entry.key
    if can_retry(entry):
        row.operator(EX4D_OT_retry_take.bl_idname, text="Make Again", icon="FILE_REFRESH").key = entry.key
    if not can_cancel(entry):
        row.operator(EX4D_OT_forget_take.bl_idname, text="Remove", icon="TRASH").key = entry.key
        strip = find_strip(entry.id_data, entry.key)
        if strip is None and has_frames(entry):
            layout.operator(EX4D_OT_place_take.bl_idname, icon="SEQ_SEQUENCER").key = entry.key
        elif strip is not None and strip.mute and len(takes_of_shot(entry.id_data, entry.shot)) > 1:
            layout.operator(EX4D_OT_show_take.bl_idname, icon="HIDE_OFF").key = entry.key
    layout.operator(EX4D_OT_restore_take.bl_idname, icon="LOOP_BACK").key = entry.key


def take_name(entry: EX4D_Take) -> str:
    """What lists call a take: its label, and which version of its shot it is."""
    final = " " + iface_("final") if entry.engine == FINAL_ENGINE else ""
    return version_name(entry.label, entry.version) + final


def settings_text(entry: EX4D_Take) -> str:
    """What tells the finals of a shot apart, in a few words; "" for a preview."""
    if entry.engine != FINAL_ENGINE or entry.seed < 0:
        return ""
    text = iface_("Seed {seed}, {steps} steps, guidance {guidance}")
    return text.format(seed=entry.seed, steps=entry.steps, guidance=f"{entry.guidance:g}")


def state_text(entry: EX4D_Take) -> str:
    """A take's state in a word, as it is now: of a backend that is away nobody knows whether it still runs."""
    if can_cancel(entry) and entry.cancelling:
        return iface_("cancelling")
    if can_cancel(entry) and not session().connected:
        return iface_("waiting")
    return iface_(entry.state)


def progress_text(entry: EX4D_Take) -> str:
    """What a take under way is at, in a few words."""
    if entry.cancelling:
        return iface_("cancelling")
    if not session().connected:  # what it was at when last heard of may be long over
        return iface_("waiting for the backend") + f" {entry.progress:.0%}"
    if entry.state == "queued":
        if entry.queue_position:
            return iface_("{count} before it").format(count=entry.queue_position)
        return iface_("next in the queue")
    text = stage_text(entry)
    return text if entry.seconds_left < 1 else iface_("{step}, {time} left").format(step=text, time=duration(entry))


def stage_text(entry: EX4D_Take) -> str:
    """What is being done, and how far that is."""
    if entry.stage == "denoise":
        return iface_("step {done} of {total}").format(done=entry.done, total=entry.total)
    if entry.stage == entry.engine:
        return iface_("frame {done} of {total}").format(done=entry.done, total=entry.total)
    if entry.stage == WARM_UP_STAGE:
        return iface_("warming up")
    if not entry.stage and entry.state == "running":
        return iface_("starting")
    step = iface_("loading weights") if entry.stage == LOAD_STAGE else iface_(entry.stage or "sending")
    return f"{step} {entry.progress:.0%}"


def duration(entry: EX4D_Take) -> str:
    """Seconds left, as people say it."""
    seconds = entry.seconds_left
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _draw_status(header: bpy.types.Header, context: bpy.types.Context) -> None:
    """In Blender's status bar: the takes under way, in every scene."""
    under_way = [entry for scene in own_scenes() for entry in scene.ex4d_takes if can_cancel(entry)]
    if not under_way:
        return
    first = next((entry for entry in under_way if entry.state == "running"), under_way[0])
    more = f" (+{len(under_way) - 1})" if len(under_way) > 1 else ""
    row = header.layout.row(align=True)
    row.progress(factor=first.progress, type="RING", text="")
    row.label(text=f"EX-4D {take_name(first)}: {progress_text(first)}{more}", translate=False)


CLASSES = (EX4D_PT_take, EX4D_UL_takes, EX4D_PT_takes)


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(_draw_status)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(_draw_status)
