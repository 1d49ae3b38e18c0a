"""The enabled add-on as tests reach it: its module and its preferences."""

from __future__ import annotations

import sys
from types import ModuleType

import bpy


def add_on() -> ModuleType:
    """The add-on's module; Blender loads another one after a failure."""
    return sys.modules["blender_addon"]


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons["blender_addon"].preferences
