"""A layout that notes what is drawn into it: without a window Blender has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy

ICONS = bpy.types.UILayout.bl_rna.functions["operator"].parameters["icon"].enum_items


class Drawn:
    """Stands for a `UILayout`, and for all layouts inside of it.

    Attributes:
        operators: names of the operators on buttons, in order.
        menus: names of the menus on buttons.
        texts: labels, and the texts of buttons.
    """

    def __init__(self) -> None:
        self.operators: list[str] = []
        self.menus: list[str] = []
        self.texts: list[str] = []

    def _nested(self, *_: object, **__: object) -> Drawn:
        return self

    row = column = box = split = menu_pie = column_flow = grid_flow = _nested

    def operator(self, name: str, text: str = "", icon: str = "NONE", **_: object) -> SimpleNamespace:
        assert icon in ICONS, icon
        self.operators.append(name)
        self.texts.append(text)
        return SimpleNamespace()

    def operator_menu_enum(self, name: str, _: str, text: str = "", icon: str = "NONE", **__: object) -> None:
        self.operator(name, text, icon)

    def menu(self, name: str, text: str = "", icon: str = "NONE", **_: object) -> None:
        assert icon in ICONS, icon
        self.menus.append(name)

    def label(self, text: str = "", **_: object) -> None:
        self.texts.append(text)

    def prop(self, *_: object, **__: object) -> None: ...

    separator = context_pointer_set = prop


def draw_menu(name: str) -> Drawn:
    """What the add-on draws into a menu of Blender, with what is in its own menus there."""
    drawn, kind = Drawn(), getattr(bpy.types, name)
    if name.startswith("EX4D"):
        functions: list[Any] = [kind.draw]
    else:
        functions = [one for one in kind._dyn_ui_initialize() if one.__module__.startswith("blender_addon")]
    for draw in functions:
        draw(SimpleNamespace(layout=drawn), bpy.context)
    for inner in drawn.menus:
        if inner.startswith("EX4D_MT") and inner != "EX4D_MT_saved_moves":
            drawn.operators += draw_menu(inner).operators
    return drawn
