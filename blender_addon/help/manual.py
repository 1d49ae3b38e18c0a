"""The manual that comes with the add-on: F1, and *Online Manual* in the context menu of every button, lead to its page.

`scripts/write_manual.py` writes the pages from the documentation. They open from the disk, without a network.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from ..blender_types import Context, Operator, ops

MANUAL = Path(__file__).resolve().parent.parent / "manual"

# The page for what the modules of a folder register.
_PAGES = {
    "connection": "connection",
    "help": "preferences",
    "footage": "scene",
    "scenes": "scene",
    "cameras": "camera",
    "coverage": "camera",
    "views": "camera",
    "live": "camera",
    "shots": "shots-and-takes",
    "takes": "shots-and-takes",
    "jobs": "shots-and-takes",
    "sequencer": "shots-and-takes",
    "projects": "files-on-disk",
    "shortcuts": "keys-menus-and-drops",
}
_PREFERENCES = "connection.preferences"
_ADDON = (__package__ or "").rpartition(".")[0]


class EX4D_OT_manual(Operator):
    """Read the add-on's manual; opens in the web browser, works offline."""

    bl_idname = "ex4d.manual"
    bl_label = "EX-4D Manual"

    def execute(self, context: Context) -> set[str]:
        ops.wm.url_open(url=(MANUAL / "index.html").as_uri())
        return {"FINISHED"}


def manual_map() -> tuple[str, tuple[tuple[str, str], ...]]:
    """What Blender asks for: the address of the pages, and patterns of names with the page of each."""
    return f"{MANUAL.as_uri()}/", tuple(_patterns())


def _patterns() -> Iterator[tuple[str, str]]:
    for module in importlib.import_module(_ADDON).MODULES:
        name = module.__name__.removeprefix(f"{_ADDON}.")
        folder = name.partition(".")[0]
        page = "preferences" if name == _PREFERENCES else _PAGES.get(folder, "index")
        for kind in getattr(module, "CLASSES", ()):
            yield f"{_rna_name(kind)}*", f"{page}.html"
        for owner, property_name, _ in getattr(module, "PROPERTIES", ()):
            yield f"bpy.types.{owner.__name__}.{property_name}*".lower(), f"{page}.html"


def _rna_name(kind: Any) -> str:
    """A class as Blender names it when it looks for a page; always in lower case."""
    if issubclass(kind, bpy.types.Operator):
        return f"bpy.ops.{kind.bl_idname}"
    return f"bpy.types.{kind.__name__}".lower()


CLASSES = (EX4D_OT_manual,)


def register() -> None:
    """Let Blender find the pages."""
    bpy.utils.register_manual_map(manual_map)


def unregister() -> None:
    """Take them away again."""
    bpy.utils.unregister_manual_map(manual_map)
