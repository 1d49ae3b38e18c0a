"""Footage and takes are finished pictures: these settings keep Blender's view transform from grading them again.

Blender shows a picture as ``view transform(colour space(file))``. Its configuration has, for most view transforms, a
colour space that is exactly their inverse; a picture that is tagged with it comes out as it was filmed, in
renders, in Material Preview and Rendered views, and in the sequencer. Solid view always uses the Standard transform, so
there it is right under Standard only; and Standard needs no conversion, so movies play fastest.
"""

from __future__ import annotations

import bpy


def display_color_space(scene: bpy.types.Scene, settings: bpy.types.ColorManagedInputColorspaceSettings) -> str:
    """Name of the colour space that a Blender scene's view transform turns back into the picture's own values.

    Exact for the looks "None" with exposure 0 and gamma 1; view transforms without an inverse (False Color, the logs)
    get sRGB, and then show the picture in their own way.
    """
    view = scene.view_settings.view_transform
    known = settings.bl_rna.properties["name"].enum_items.keys()
    for name in (f"{view} sRGB", f"{view} Base sRGB"):
        if name in known:
            return name
    return "sRGB"


def shows_as_finished(scene: bpy.types.Scene, settings: bpy.types.ColorManagedInputColorspaceSettings) -> bool:
    """Whether an image or strip looks as it was filmed under the scene's present view transform."""
    return settings.name == display_color_space(scene, settings)


def tag_as_finished(scene: bpy.types.Scene, settings: bpy.types.ColorManagedInputColorspaceSettings) -> None:
    """Tag an image or strip so that it looks as it was filmed under the scene's present view transform."""
    settings.name = display_color_space(scene, settings)
