"""Moves that the artist has saved with Blender's own operator presets, as a menu beside the built-in ones.

Blender writes them from the panel below the viewport ("Operator Presets"), as lines ``op.NAME = VALUE``. Here they
are read, not run, so a preset from a stranger can do nothing but move a camera.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import bpy

from ex4d_core.errors import Ex4dError

PRESET_FOLDER = "operator/ex4d.add_camera"


class PresetError(Ex4dError, ValueError):
    """A saved move that cannot be read; the text says which and why."""


def read_preset(path: Path, known: set[str]) -> dict[str, Any]:
    """Settings of the operator, by name.

    Args:
        known: names that count; a preset of another version of the add-on may have others.

    Raises:
        PresetError: the file is missing or is no preset.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise PresetError(f"the saved move {path} cannot be read: {error}; save it again") from error
    values = {}
    for line in tree.body:
        if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Attribute):
            continue
        target = line.targets[0]
        if isinstance(target.value, ast.Name) and target.value.id == "op" and target.attr in known:
            try:
                values[target.attr] = ast.literal_eval(line.value)
            except ValueError as error:
                raise PresetError(f"the saved move {path} sets {target.attr} to no plain value") from error
    return values


class EX4D_MT_saved_moves(bpy.types.Menu):
    bl_label = "Saved Moves"
    bl_description = "Camera moves that you have saved"
    preset_subdir = PRESET_FOLDER
    preset_operator = "ex4d.add_saved_camera"

    def draw(self, context: bpy.types.Context) -> None:
        if not any(Path(folder).glob("*.py") for folder in bpy.utils.preset_paths(PRESET_FOLDER)):
            self.layout.label(text="None yet: add a move, then use Operator Presets", icon="INFO")
            self.layout.label(text="in the panel at the viewport's lower left", icon="BLANK1")
            return
        bpy.types.Menu.draw_preset(self, context)


CLASSES = (EX4D_MT_saved_moves,)
