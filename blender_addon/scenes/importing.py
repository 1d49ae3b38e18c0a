"""Scene package to Blender objects: mesh, footage, source camera and timing, in a collection of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import BLENDER_FROM_SCENE, CameraPath, blender_from_intrinsics
from ex4d_core.scene import Scene

from ..cameras.keyframes import animate, new_camera, record
from .link import link_scene, scene_objects
from .material import SOURCE_EYE, footage_image, footage_material, unseen_material
from .mesh import add_positions_cache, build_mesh

_STILL = 1e-9


@dataclass(frozen=True)
class ImportSettings:
    """How a scene comes into Blender.

    Attributes:
        frame_start: Blender frame that shows the footage's first frame; None takes the Blender scene's first frame.
        set_up_scene: whether frame range, rate, resolution, pixel aspect and active camera are set to the footage's;
            None does so when the Blender scene has no imported scene yet.
        standard_view: whether that also sets the view transform to Standard, the only one under which Solid view shows
            footage as it was filmed, and the fastest (see `color_space`), and has Solid view show images.
    """

    frame_start: int | None = None
    set_up_scene: bool | None = None
    standard_view: bool = True


def import_scene(folder: str | Path, settings: ImportSettings | None = None) -> bpy.types.Object:
    """Bring a scene package into the current Blender scene.

    Returns:
        The DW-Mesh object, whose ``ex4d_scene`` names the package and the source camera.

    Raises:
        SceneError: no package there, or a damaged one; nothing is added then.
    """
    settings = settings or ImportSettings()
    folder = Path(folder)
    scene = Scene.open(folder)
    source, mesh = scene.source_camera(), build_mesh(scene)
    blender_scene = bpy.context.scene
    start = blender_scene.frame_start if settings.frame_start is None else settings.frame_start
    set_up = not scene_objects() if settings.set_up_scene is None else settings.set_up_scene
    if set_up and settings.standard_view:
        blender_scene.view_settings.view_transform = "Standard"
        show_images_in_solid_view()

    name = scene.manifest.name
    collection = bpy.data.collections.new(name)
    blender_scene.collection.children.link(collection)
    target = bpy.data.objects.new(name, mesh)
    collection.objects.link(target)
    target.matrix_world = mathutils.Matrix(BLENDER_FROM_SCENE)
    add_positions_cache(target, scene, start)
    link_scene(target, scene, folder, start)

    eyes = source.camera_to_world[:, :3, 3]
    still = float(np.abs(eyes - eyes[0]).max()) <= _STILL
    animate(target, f'["{SOURCE_EYE}"]', start + np.arange(len(source), dtype=np.float64), eyes)
    image = footage_image(scene, blender_scene)
    mesh.materials.append(footage_material(scene, image, start, tuple(eyes[0]) if still else None))
    mesh.materials.append(unseen_material(scene))

    camera = new_camera(f"{name} source", target, collection)
    record(camera, source, start)
    target.ex4d_scene.source_camera = camera
    show_footage_behind(camera, image, scene.manifest.frames, start)
    if set_up:
        set_up_blender_scene(blender_scene, scene, source, camera, start)
    return target


def show_footage_behind(camera: bpy.types.Object, image: bpy.types.Image, frames: int, frame_start: int) -> None:
    """Give the source camera the footage as its background, switched off, to compare with."""
    background = camera.data.background_images.new()
    background.image = image
    background.display_depth = "FRONT"
    background.alpha = 0.5
    user = background.image_user
    user.use_auto_refresh = True
    user.frame_start, user.frame_duration, user.frame_offset = frame_start, frames, 0
    camera.data.show_background_images = False


def show_images_in_solid_view() -> None:
    """Let every open 3D viewport's Solid view show footage as it is: images, and no light on them."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                shading = area.spaces.active.shading
                shading.light, shading.color_type = "FLAT", "TEXTURE"


def set_up_blender_scene(
    blender_scene: bpy.types.Scene, scene: Scene, source: CameraPath, camera: bpy.types.Object, frame_start: int
) -> None:
    """Frame range, rate, resolution, pixel aspect and active camera as the footage has them."""
    manifest, render = scene.manifest, blender_scene.render
    optics = blender_from_intrinsics(source.intrinsics[0], source.width, source.height)
    blender_scene.frame_start = frame_start
    blender_scene.frame_end = frame_start + manifest.frames - 1
    # Blender's rate is a whole number over a base: 30000/1001 is 30 over 1.001.
    render.fps = max(1, round(manifest.fps))
    render.fps_base = render.fps / float(manifest.fps)
    render.resolution_x, render.resolution_y, render.resolution_percentage = manifest.width, manifest.height, 100
    render.pixel_aspect_x, render.pixel_aspect_y = optics.pixel_aspect_x, optics.pixel_aspect_y
    blender_scene.camera = camera
