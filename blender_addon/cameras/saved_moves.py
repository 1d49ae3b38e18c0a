"""Camera moves that the artist has saved with Blender's own operator presets, as a menu beside the built-in ones.

Blender writes them from the Adjust Last Operation panel ("Operator Presets"), as lines ``op.NAME = VALUE``. Here they
are parsed, not run, so that a preset from a stranger can do nothing but move a camera.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import bpy

from ex4d_core.errors import RequestError

from ..blender_types import Context, Menu
from .move_assets import is_move

PRESET_FOLDER = "operator/ex4d.add_camera"
# Operators of `asset_operators`.
ADD_ASSET_CAMERA, SAVE_MOVE = "ex4d.add_asset_camera", "ex4d.save_move"


def read_preset(path: Path, known: set[str]) -> dict[str, Any]:
    """Settings of the operator, by name.

    Args:
        path: the preset's .py file.
        known: names to read; a preset of another version of the add-on may have others.

    Raises:
        RequestError: the file is missing or is not a preset.
    """
    try:
        values = {}
        for line in ast.parse(path.read_text(encoding="utf-8")).body:
            match line:
                case ast.Assign([ast.Attribute(ast.Name("op"), name)], value) if name in known:
                    values[name] = ast.literal_eval(value)
        return values
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"cannot read the saved move {path}: {error}; save it again") from error


class EX4D_MT_saved_moves(Menu):
    """The saved moves, or how to save one."""

    bl_label = "Saved Moves"
    bl_description = "Camera moves that you have saved"
    preset_subdir = PRESET_FOLDER
    preset_operator = "ex4d.add_saved_camera"

    def draw(self, context: Context) -> None:
        layout = self.layout
        if any(Path(folder).glob("*.py") for folder in bpy.utils.preset_paths(PRESET_FOLDER)):
            bpy.types.Menu.draw_preset(self, context)
        else:
            layout.label(text="No presets yet: add a move, then use Operator Presets", icon="INFO")
            layout.label(text="in the Adjust Last Operation panel", icon="BLANK1")
        layout.separator()
        for action in bpy.data.actions:
            if is_move(action) and action.asset_data is not None:
                add = layout.operator(ADD_ASSET_CAMERA, text=action.name, translate=False, icon="ASSET_MANAGER")
                add.action = action.name
        layout.operator(SAVE_MOVE, icon="ASSET_MANAGER")


CLASSES = (EX4D_MT_saved_moves,)
