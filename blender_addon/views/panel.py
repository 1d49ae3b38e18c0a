"""Sidebar: the backend's view of the current frame."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..cameras.panel import BelowCamera
from ..connection.panel import draw_text
from ..errors import reports_errors
from ..live.query import note_switch
from ..shots.objects import NeedsShot
from .images import open_image
from .live_view import live_view, view_image


class EX4D_View(bpy.types.PropertyGroup):
    """How the backend's view is shown (``Scene.ex4d_view``)."""

    live: bpy.props.BoolProperty(
        name="Backend View",
        description="Let the backend render the current frame as in a preview, updated with every change; sends the "
        "scene to the backend",
        default=False,
        update=note_switch,
    )
    seal: bpy.props.StringProperty(options={"HIDDEN"})


class EX4D_OT_show_view(NeedsShot, bpy.types.Operator):
    """Render the current frame on the backend as in a preview, and show it in an open Image Editor."""

    bl_idname = "ex4d.show_view"
    bl_label = "Show This Frame"

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        live_view.ask_now(context)
        return {"FINISHED"}


class EX4D_OT_open_view(bpy.types.Operator):
    """Show the backend's view in an Image Editor: one that is open, or a new window."""

    bl_idname = "ex4d.open_view"
    bl_label = "Open View"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if view_image() is None:
            cls.poll_message_set(iface_("There is no view yet; press Show This Frame"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        open_image(context, view_image())
        return {"FINISHED"}


class EX4D_PT_view(BelowCamera, bpy.types.Panel):
    """The view's visible fraction, and buttons to get it."""

    bl_label = "Backend View"
    bl_order = 1
    settings = "ex4d_view"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        row = layout.row(align=True)
        row.operator(EX4D_OT_show_view.bl_idname, icon="RENDER_STILL")
        row.operator(EX4D_OT_open_view.bl_idname, text="", icon="IMAGE_DATA")
        text = live_view.problem
        if not text and live_view.visible is not None:
            text = iface_("{fraction} of it visible in the footage").format(fraction=f"{live_view.visible:.0%}")
            if live_view.remembered:
                also = iface_("{remembered} in other frames").format(remembered=f"{live_view.remembered:.0%}")
                text = f"{text}, {also}"
        draw_text(layout, text, context, "INFO" if live_view.problem else "HIDE_OFF", lines=2)


CLASSES = (EX4D_View, EX4D_OT_show_view, EX4D_OT_open_view, EX4D_PT_view)
PROPERTIES = ((bpy.types.Scene, "ex4d_view", bpy.props.PointerProperty(type=EX4D_View)),)
