"""Side bar: what previews and finals of the active shot are made with, below the buttons that make them."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.messages import command_in
from ex4d_core.shot import RequestError

from ..cameras.optics import render_size
from ..connection.panel import CATEGORY, draw_problem, draw_text
from ..connection.session import session
from ..takes.panel import EX4D_PT_take
from ..takes.requests import shot_range
from .final import FINAL_ENGINE, EX4D_OT_edit_words, EX4D_OT_new_seed, extent_text, final_settings, why_no_final
from .objects import shot_objects
from .properties import active_shot


class _BelowTake:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_parent_id = EX4D_PT_take.__name__
    bl_options = {"DEFAULT_CLOSED"}


class EX4D_PT_preview_settings(_BelowTake, bpy.types.Panel):
    bl_label = "Preview Settings"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        layout, shot = self.layout, active_shot(context.scene)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shot, "holes")
        if shot.holes == "mark":
            layout.prop(shot, "hole_color")


class EX4D_PT_final_settings(_BelowTake, bpy.types.Panel):
    bl_label = "Final Settings"
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        layout, final = self.layout, active_shot(context.scene).final
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(final, "preset")
        _words(layout.column(align=True), final, "prompt")
        unwanted = layout.column(align=True)
        unwanted.active = final.guidance > 1.0
        _words(unwanted, final, "negative_prompt")
        row = layout.row(align=True)
        row.prop(final, "seed")
        row.operator(EX4D_OT_new_seed.bl_idname, text="", icon="FILE_REFRESH")
        layout.prop(final, "steps")
        layout.prop(final, "guidance")
        layout.prop(final, "takes")
        if extent := _extent(context):
            draw_text(layout, extent, context, "TIME")
        if not session().connected:
            return
        server = session().client.server
        if reason := why_no_final(server, final.preset, research=True):
            draw_problem(layout, reason, context)
            if command_in(reason):
                draw_text(layout, iface_("Run it where the backend is; Final can be pressed soon after"), context)
        if rests_on := server.engines.get(FINAL_ENGINE):
            draw_text(layout, iface_("Results rest on {licences}").format(licences=rests_on), context, "INFO")


def _extent(context: bpy.types.Context) -> str:
    """What a final of the active shot amounts to; "" where that cannot be said."""
    scene_object, _ = shot_objects(context)
    if scene_object is None:
        return ""
    first, last = shot_range(context.scene, scene_object)
    try:
        settings = final_settings(active_shot(context.scene).final)
    except RequestError:
        return ""
    return extent_text(settings, last - first + 1, *render_size(context.scene.render)) if first <= last else ""


def _words(layout: bpy.types.UILayout, final: bpy.types.PropertyGroup, name: str) -> None:
    """A text that is long, below its name and as wide as the side bar."""
    layout.use_property_split = False
    row = layout.row()
    row.label(text=final.bl_rna.properties[name].name)
    row.operator(EX4D_OT_edit_words.bl_idname, text="", icon="TEXT", emboss=False).words = name
    layout.prop(final, name, text="")


CLASSES = (EX4D_PT_preview_settings, EX4D_PT_final_settings)
