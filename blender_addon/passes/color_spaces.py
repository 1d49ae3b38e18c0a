"""Names of colour spaces: those that backends write files in, and Blender's for the same."""

from __future__ import annotations

from typing import Any

import bpy

from ex4d_core.errors import RequestError

from ..blender_types import enum_items

# OpenColorIO's built-in configurations and Blender's name these differently; the rest has the same name in both.
_BLENDERS_NAMES = {
    "Linear Rec.709 (sRGB)": "Linear Rec.709",
    "Linear P3-D65": "Linear DCI-P3 D65",
    "sRGB - Texture": "sRGB",
    "sRGB Encoded Rec.709 (sRGB)": "sRGB",
}


def blenders_name(space: str) -> str:
    """Blender's name of a colour space, which this version may lack."""
    return _BLENDERS_NAMES.get(space, space)


def is_known(space: str) -> bool:
    """Whether Blender can read files in a colour space."""
    kind: Any = bpy.types.ColorManagedInputColorspaceSettings
    return blenders_name(space) in enum_items(kind, "name")


def require_known(space: str) -> None:
    """Check that Blender can read files in a colour space.

    Raises:
        RequestError: it does not know the space.
    """
    if not is_known(space):
        raise RequestError(
            f"this Blender has no color space {space!r}, so its compositor cannot read such passes; set Output Space "
            "to one that it has, such as ACEScg or Linear Rec.709 (sRGB)"
        )
