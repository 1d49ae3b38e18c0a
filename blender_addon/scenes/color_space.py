"""Colour spaces for footage and takes, which are display-referred: the view transform must not grade them again.

Blender shows an image as ``view transform(colour space(file))``. For most view transforms its configuration has a
colour space that is exactly their inverse; an image that is tagged with it shows as filmed, in renders, in Material
Preview and Rendered view, and in the sequencer. Solid view always uses the Standard transform, so there it is right
under Standard only; Standard needs no conversion, so movies play fastest.
"""

from __future__ import annotations

from typing import Any, cast

import bpy

from ..blender_types import BlenderScene, enum_items


def display_color_space(scene: bpy.types.Scene, owner: Any) -> str:
    """Name of the colour space that a Blender scene's view transform converts back to the image's own values.

    Exact for the look "None" with exposure 0 and gamma 1; view transforms without an inverse (False Color, the logs)
    get sRGB, and show the image in their own way.

    Args:
        scene: the Blender scene.
        owner: an image or strip.
    """
    view = cast(BlenderScene, scene).view_settings.view_transform
    known = enum_items(owner.colorspace_settings, "name").keys()
    for name in (f"{view} sRGB", f"{view} Base sRGB"):
        if name in known:
            return name
    return "sRGB"


def shows_as_filmed(scene: bpy.types.Scene, owner: Any) -> bool:
    """Whether an image or strip looks as filmed under the scene's current view transform."""
    return owner.colorspace_settings.name == display_color_space(scene, owner)


def tag_as_filmed(scene: bpy.types.Scene, owner: Any) -> None:
    """Tag an image or strip so that it looks as filmed under the scene's current view transform."""
    owner.colorspace_settings.name = display_color_space(scene, owner)
