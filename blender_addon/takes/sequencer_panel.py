"""In the sequencer: the versions of the active strip's shot, in the sidebar, the header and the context menu."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, Menu, Operator, Panel
from ..connection.panel import draw_text
from ..connection.session import session
from ..jobs.progress import state_icon
from ..sequencer.edit_scenes import cut_scene, strip_in_file
from .operators import EX4D_OT_show_take
from .panel import rate_texts, settings_text, take_name
from .properties import EX4D_Take, takes_of_shot
from .thumbnails import thumbnail
from .versions import neighbour_of, show_version, take_of_strip, versions_of


def active_take_strip(context: Context) -> EX4D_Take | None:
    """The take of the active strip of the sequencer that is open, or None."""
    editor = cut_scene(context).sequence_editor
    return take_of_strip(editor.active_strip) if editor is not None else None


class EX4D_OT_flip_version(Operator):
    """Show another version of the active strip's shot, and mute the one that is shown."""

    bl_idname = "ex4d.flip_version"
    bl_label = "Flip Version"
    bl_options = {"REGISTER", "UNDO"}

    step: bpy.props.IntProperty(name="Step", description="How many versions forward; below 0 backward", default=1)

    @classmethod
    def poll(cls, context: Context) -> bool:
        take = active_take_strip(context)
        if take is None:
            cls.poll_message_set(iface_("Select the strip of an EX-4D take in the sequencer"))
            return False
        if len(versions_of(take)) < 2:
            cls.poll_message_set(iface_("This shot has one version only; take it again for another"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        take = active_take_strip(context)
        if take is None:
            return {"CANCELLED"}
        shown = next((one for one in versions_of(take) if not strip_is_muted(one)), take)
        show_version(neighbour_of(shown, self.step))
        session().redraw()
        return {"FINISHED"}


def strip_is_muted(take: EX4D_Take) -> bool:
    """Whether a take has no strip, or a muted one."""
    strip = strip_in_file(take.key)
    return strip is None or strip.mute


class EX4D_PT_versions(Panel):
    """The versions of the active strip's shot."""

    bl_label = "Versions"
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "EX-4D"

    @classmethod
    def poll(cls, context: Context) -> bool:
        return active_take_strip(context) is not None

    def draw(self, context: Context) -> None:
        take = active_take_strip(context)
        if take is None:
            return
        layout = self.layout
        draw_flip(layout.row(align=True), text=True)
        column = layout.column(align=True)
        for version in takes_of_shot(take.id_data, take.shot) or [take]:
            row = column.row(align=True)
            image = thumbnail(version)
            shown = {"icon_value": image} if image else {"icon": "SEQUENCE"}
            row.label(text=take_name(version), translate=False, **shown)
            if strip_in_file(version.key) is not None:
                eye = "HIDE_ON" if strip_is_muted(version) else "HIDE_OFF"
                row.operator(EX4D_OT_show_take.bl_idname, text="", icon=eye, emboss=False).key = version.key
            row.label(text="", icon=state_icon(version))
            if made_with := settings_text(version):
                draw_text(column, made_with, context, "BLANK1")
        for note in rate_texts(take):
            draw_text(layout, note, context, "INFO")


def draw_flip(row: bpy.types.UILayout, text: bool = False) -> None:
    """The two buttons that show the version before and the one after."""
    names = (iface_("Previous"), iface_("Next")) if text else ("", "")
    for name, icon, step in ((names[0], "TRIA_LEFT", -1), (names[1], "TRIA_RIGHT", 1)):
        row.operator(EX4D_OT_flip_version.bl_idname, text=name, icon=icon, translate=False).step = step


def _draw_header(header: bpy.types.Header, context: Context) -> None:
    take = active_take_strip(context)
    if take is None:
        return
    row = header.layout.row(align=True)
    row.label(text=take_name(take), translate=False)
    draw_flip(row)


def _draw_context_menu(menu: Menu, context: Context) -> None:
    if active_take_strip(context) is None:
        return
    menu.layout.separator()
    for text, step in ((iface_("Previous EX-4D Version"), -1), (iface_("Next EX-4D Version"), 1)):
        menu.layout.operator(EX4D_OT_flip_version.bl_idname, text=text, translate=False).step = step


CLASSES = (EX4D_OT_flip_version, EX4D_PT_versions)
MENUS = (("SEQUENCER_HT_header", _draw_header), ("SEQUENCER_MT_context_menu", _draw_context_menu))
