"""Operators on the connection."""

from __future__ import annotations

import bpy

from .preferences import ADDON_PACKAGE
from .session import session


class EX4D_OT_reconnect(bpy.types.Operator):
    bl_idname = "ex4d.reconnect"
    bl_label = "Reconnect"
    bl_description = "Drop the connection to the EX-4D backend and make it anew, with the address in the preferences"

    def execute(self, context: bpy.types.Context) -> set[str]:
        session().reconnect()
        return {"FINISHED"}


class EX4D_OT_preferences(bpy.types.Operator):
    bl_idname = "ex4d.preferences"
    bl_label = "EX-4D Preferences"
    bl_description = "Set the backend's address, its keys and the folder for takes"

    def execute(self, context: bpy.types.Context) -> set[str]:
        bpy.ops.preferences.addon_show(module=ADDON_PACKAGE)
        return {"FINISHED"}


CLASSES = (EX4D_OT_reconnect, EX4D_OT_preferences)
