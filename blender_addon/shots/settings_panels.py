"""Sidebar: the settings of the active shot's previews and final takes, below the Take panel."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cards import Card
from ex4d_core.messages import Welcome, command_in
from ex4d_core.shot import RequestError
from ex4d_core.wan_settings import wan_preset

from ..blender_types import Context, Panel, SidebarPanel
from ..cameras.optics import render_size
from ..connection.panel import draw_problem, draw_text
from ..connection.session import session
from ..coverage.shot_starts import start_of_shot
from ..footage.weights import weights
from ..takes.panel import EX4D_PT_take
from ..takes.requests import shot_range
from .final_settings import (
    FINAL_ENGINE,
    EX4D_OT_edit_words,
    EX4D_OT_new_seed,
    final_settings,
    final_unavailable,
    lacking_precision,
    start_text,
    workload_text,
)
from .final_size import estimate_texts, has_choices, is_above_model, size_settings
from .objects import shot_objects
from .properties import active_shot


class _BelowTake(SidebarPanel):
    bl_parent_id = EX4D_PT_take.__name__
    bl_options = {"DEFAULT_CLOSED"}


class EX4D_PT_preview_settings(_BelowTake, Panel):
    """Settings of previews."""

    bl_label = "Preview Settings"
    bl_order = 0

    def draw(self, context: Context) -> None:
        layout, shot = self.layout, active_shot(context.scene)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shot, "holes")
        if shot.holes == "mark":
            layout.prop(shot, "hole_color")


class EX4D_PT_final_settings(_BelowTake, Panel):
    """Settings of final takes."""

    bl_label = "Final Settings"
    bl_order = 1

    def draw(self, context: Context) -> None:
        layout, final = self.layout, active_shot(context.scene).final
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(final, "preset")
        _draw_prompt(layout.column(align=True), final, "prompt")
        negative = layout.column(align=True)
        negative.active = final.guidance > 1.0
        _draw_prompt(negative, final, "negative_prompt")
        numbers = layout.column(align=True)
        numbers.use_property_split = False  # with the labels inside, which fit a narrow sidebar
        row = numbers.row(align=True)
        row.prop(final, "seed")
        row.operator(EX4D_OT_new_seed.bl_idname, text="", icon="FILE_REFRESH")
        numbers.prop(final, "steps")
        numbers.prop(final, "guidance")
        numbers.prop(final, "stride")
        numbers.prop(final, "takes")
        if wan_preset(final.preset).conditioning == "known":
            layout.prop(final, "lead_in")
        if final.adapter or weights.adapters:
            layout.prop(final, "adapter_choice")
        _draw_sizes(layout, final)
        client = session().client
        server = client.server if client is not None and session().connected else None
        _draw_workload(layout, context, server)
        if server is None:
            return
        if reason := final_unavailable(server, final.preset, research=True):
            draw_problem(layout, reason, context)
            if command_in(reason):
                draw_text(layout, iface_("Run it on the backend's computer; Final is enabled soon after"), context)
        elif lacking := lacking_precision(server, final.preset):
            draw_text(layout, lacking, context, "INFO")
        if depends_on := server.engines.get(FINAL_ENGINE):
            draw_text(layout, iface_("Results depend on {licenses}").format(licenses=depends_on), context, "INFO")


def _draw_sizes(layout: bpy.types.UILayout, final: bpy.types.PropertyGroup) -> None:
    """The working size and what becomes of seen pixels, as far as the preset leaves them open."""
    layout.prop(final, "size")
    settings = wan_preset(final.preset, **size_settings(final))
    if has_choices(settings):
        if is_above_model(settings):
            layout.prop(final, "above_model")
        layout.prop(final, "keep_seen")


def _draw_workload(layout: bpy.types.UILayout, context: Context, server: Welcome | None) -> None:
    """The workload of a final take of the active shot, its start, and about what it takes on the backend's GPU."""
    scene_object, _ = shot_objects(context)
    if scene_object is None:
        return
    first, last = shot_range(context.scene, scene_object)
    try:
        settings = final_settings(active_shot(context.scene).final)
    except RequestError:
        return
    if first > last:
        return
    render, frames = context.scene.render, last - first + 1
    aspect = render.pixel_aspect_x / render.pixel_aspect_y
    known = start_of_shot(context.scene, scene_object)
    size = render_size(render)
    draw_text(layout, workload_text(settings, frames, *size, aspect, known.at_source, server), context, "TIME")
    if text := start_text(settings, frames, known.at_source, known.visible_fraction):
        draw_text(layout, text, context, "CAMERA_DATA")
    if server is None or (card := Card.first_of(server.devices)) is None:
        return
    hidden = 0 if known.at_source else settings.lead_in
    estimate, problem = estimate_texts(settings, frames, *size, card, hidden, aspect)
    if problem:
        draw_problem(layout, problem, context)
    else:
        draw_text(layout, estimate, context, "MEMORY")


def _draw_prompt(layout: bpy.types.UILayout, final: bpy.types.PropertyGroup, name: str) -> None:
    """A long text, below its name and as wide as the sidebar."""
    layout.use_property_split = False
    row = layout.row()
    row.label(text=final.bl_rna.properties[name].name)
    row.operator(EX4D_OT_edit_words.bl_idname, text="", icon="TEXT", emboss=False).words = name
    layout.prop(final, name, text="")


CLASSES = (EX4D_PT_preview_settings, EX4D_PT_final_settings)
