"""Sidebar: a generated draft of the shot that follows the camera."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..cameras.panel import BelowCamera
from ..connection.panel import draw_text
from ..live.query import note_switch
from ..shots.objects import NeedsShot
from .images import open_image
from .live_draft import draft_image, live_drafts


class EX4D_Draft(bpy.types.PropertyGroup):
    """How the draft is made (``Scene.ex4d_draft``)."""

    live: bpy.props.BoolProperty(
        name="Live Draft",
        description="Let the backend generate a small draft of the shot in 4 steps, again with every change of the "
        "camera; sends the scene to the backend",
        default=False,
        update=note_switch,
    )
    seal: bpy.props.StringProperty(options={"HIDDEN"})


class EX4D_OT_watch_draft(NeedsShot, bpy.types.Operator):
    """Generate drafts of the shot while the camera moves, and show the newest in an Image Editor."""

    bl_idname = "ex4d.watch_draft"
    bl_label = "Watch"

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.ex4d_draft.live = True
        open_image(context, draft_image())
        return {"FINISHED"}


class EX4D_PT_draft(BelowCamera, bpy.types.Panel):
    """A button that shows the draft, and what it is."""

    bl_label = "Live Draft"
    bl_order = 2
    settings = "ex4d_draft"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator(EX4D_OT_watch_draft.bl_idname, icon="HIDE_OFF")
        text = live_drafts.problem
        if not text and live_drafts.frames:
            width, height = live_drafts.size
            text = iface_("Draft: {frames} frames at {width} x {height}, 4 steps").format(
                frames=len(live_drafts.frames), width=width, height=height
            )
        draw_text(layout, text, context, "INFO", lines=2)


CLASSES = (EX4D_Draft, EX4D_OT_watch_draft, EX4D_PT_draft)
PROPERTIES = ((bpy.types.Scene, "ex4d_draft", bpy.props.PointerProperty(type=EX4D_Draft)),)
