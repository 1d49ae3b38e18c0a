"""What a 3D viewport's shading shows of a scene's mesh, which decides what is drawn over it."""

from __future__ import annotations

from dataclasses import dataclass

import bpy


@dataclass(frozen=True)
class ViewportLook:
    """What there is to be marked.

    Attributes:
        surfaces: the mesh hides what is behind it; not in wireframe and X-ray.
        footage: it shows the footage, and not a colour.
        material: it is drawn with its material, which has the unseen colour on all stretched faces.
    """

    surfaces: bool
    footage: bool
    material: bool


def look_of(space: bpy.types.SpaceView3D, blender_scene: bpy.types.Scene) -> ViewportLook:
    """The look of a viewport that shows a Blender scene; with Workbench, Rendered view is a Solid view of its own."""
    shading = space.shading
    if shading.type == "RENDERED" and blender_scene.render.engine == "BLENDER_WORKBENCH":
        shading = blender_scene.display.shading
    elif shading.type in ("MATERIAL", "RENDERED"):
        return ViewportLook(surfaces=True, footage=True, material=True)
    surfaces = shading.type != "WIREFRAME" and not shading.show_xray
    return ViewportLook(surfaces, footage=surfaces and shading.color_type == "TEXTURE", material=False)
