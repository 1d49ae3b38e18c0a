"""Takes in Blender's own menus: Render, and the sequencer's Add and Strip."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, Menu
from ..jobs.records import records_of
from ..sequencer.edit_scenes import strip_in_file
from .operators import EX4D_OT_place_take, EX4D_OT_send_final, EX4D_OT_send_take, EX4D_OT_show_result
from .properties import TAKES, EX4D_Take, newest_take, take_name
from .sequencer_panel import EX4D_OT_flip_version
from .thumbnails import has_frames
from .workspace import EX4D_OT_open_workspace


class EX4D_MT_render(Menu):
    """Takes of the active shot."""

    bl_label = "EX-4D"

    def draw(self, context: Context) -> None:
        layout, newest = self.layout, newest_take(context.scene)
        layout.operator(EX4D_OT_send_take.bl_idname, icon="RENDER_ANIMATION")
        layout.operator(EX4D_OT_send_final.bl_idname, icon="SHADERFX")
        layout.separator()
        layout.operator("ex4d.show_view", icon="RENDER_STILL")
        layout.operator(EX4D_OT_show_result.bl_idname, icon="PLAY").key = newest.key if newest is not None else ""
        layout.operator(EX4D_OT_open_workspace.bl_idname, icon="WORKSPACE")


class EX4D_MT_add_take(Menu):
    """Takes of the file that have no strip, as after one was deleted."""

    bl_label = "EX-4D Take"

    def draw(self, context: Context) -> None:
        layout, without = self.layout, takes_without_strip()
        for take in without:
            layout.operator(EX4D_OT_place_take.bl_idname, text=take_name(take), translate=False).key = take.key
        if not without:
            layout.label(text="Every take has a strip already", icon="INFO")


def takes_without_strip() -> list[EX4D_Take]:
    """The takes of all scenes that can be put into the sequencer again."""
    takes = (take for _, take in records_of(TAKES))
    return [take for take in takes if strip_in_file(take.key) is None and has_frames(take)]


def _draw_render(menu: Any, _: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu(EX4D_MT_render.__name__, icon="CAMERA_DATA")


def _draw_add(menu: Any, _: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu(EX4D_MT_add_take.__name__, icon="CAMERA_DATA")


def _draw_strip(menu: Any, _: bpy.types.Context) -> None:
    layout = menu.layout
    layout.separator()
    for text, step in ((iface_("Previous EX-4D Version"), -1), (iface_("Next EX-4D Version"), 1)):
        layout.operator(EX4D_OT_flip_version.bl_idname, text=text, translate=False).step = step
    layout.operator("ex4d.use_movie_strip", text="Use as EX-4D Footage")


MENUS = (("TOPBAR_MT_render", _draw_render), ("SEQUENCER_MT_add", _draw_add), ("SEQUENCER_MT_strip", _draw_strip))

CLASSES = (EX4D_MT_render, EX4D_MT_add_take)
