"""Imports a scene package: mesh, footage, source camera and timing, in a collection of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
import mathutils
import numpy as np

from ex4d_core.blender_cameras import BLENDER_FROM_SCENE, blender_from_intrinsics
from ex4d_core.cameras import CameraPath
from ex4d_core.mesh_cache import positions_file
from ex4d_core.scene import Scene

from ..blender_types import Context, current_context
from ..cameras.keyframes import animate, bake_path, camera_data, new_camera
from .depth_preview import depth_of
from .enclosing import hide_default_cube
from .link import EX4D_SceneLink, link_of, link_scene, scene_objects
from .matching import SETTINGS, match_footage
from .material import SOURCE_EYE, footage_image, footage_material
from .mesh import add_positions_cache, build_mesh
from .new_file import is_new_file

# A source camera that moves by less than this, in scene units, is static.
_STATIC = 1e-9
# A camera that moves half of the way to the nearest surface, or away by twice the largest depth, still sees everything.
_CLIP_NEAR, _CLIP_FAR = 0.1, 3.0
# How large a camera is drawn, as a share of the smallest depth: its lines stay out of the views of moves beside it.
_DRAWN_SIZE = 0.1


@dataclass(frozen=True)
class ImportSettings:
    """How a scene is imported.

    Attributes:
        frame_start: Blender frame that shows the footage's first frame; None for the Blender scene's first frame.
        set_up_scene: whether to take frame range, rate, resolution, pixel aspect and active camera from the footage;
            None does so in a new, empty file, and else lets the Scene panel list what differs.
        standard_view: whether that also sets the view transform to Standard, the only one under which Solid view shows
            footage as filmed, and the fastest (see `color_space`), and lets every viewport look through the source
            camera at textures without lights (see `viewports`).
    """

    frame_start: int | None = None
    set_up_scene: bool | None = None
    standard_view: bool = True


def import_scene(folder: str | Path, settings: ImportSettings | None = None) -> bpy.types.Object:
    """Import a scene package into the current Blender scene.

    Returns:
        The DW-Mesh object, whose `link_of` names the package and the source camera.

    Raises:
        SceneError: no package there, or a damaged one; nothing is added then.
    """
    settings = settings or ImportSettings()
    folder = Path(folder)
    scene = Scene.open(folder)
    write_positions(scene)
    source, mesh = scene.source_camera(), build_mesh(scene)
    blender_scene = current_context().scene
    start = blender_scene.frame_start if settings.frame_start is None else settings.frame_start
    is_first = not scene_objects()
    set_up = is_new_file(blender_scene) if settings.set_up_scene is None else settings.set_up_scene
    if set_up and settings.standard_view:  # before the footage gets the colour space that fits it
        blender_scene.view_settings.view_transform = "Standard"

    name = scene.manifest.name
    collection = bpy.data.collections.new(name)
    blender_scene.collection.children.link(collection)
    target = bpy.data.objects.new(name, mesh)
    collection.objects.link(target)
    target.matrix_world = mathutils.Matrix(BLENDER_FROM_SCENE.tolist())
    add_positions_cache(target, scene, start)
    link_scene(target, scene, folder, start)
    depth_of(target).offset = scene.manifest.mapping.offset

    eyes = source.camera_to_world[:, :3, 3]
    static = float(np.abs(eyes - eyes[0]).max()) <= _STATIC
    animate(target, f'["{SOURCE_EYE}"]', start, eyes)
    image = footage_image(scene, blender_scene)
    mesh.materials.append(footage_material(scene, image, start, tuple(eyes[0]) if static else None))

    camera = new_camera(f"{name} source", target, collection)
    fit_camera(camera, scene)
    bake_path(camera, source, start)
    link_of(target).source_camera = camera
    add_footage_background(camera, image, scene.manifest.frames, start)
    note_footage(link_of(target), scene, source)
    if set_up:
        wanted = set(SETTINGS) if settings.standard_view else set(SETTINGS) - {"view_transform", "viewports"}
        match_footage(blender_scene, target, wanted)
    elif blender_scene.camera is None:
        blender_scene.camera = camera
    if not set_up and settings.set_up_scene is None and is_first:
        link_of(target).match = "ASK"
    select_alone(current_context(), target)
    if set_up:
        hide_default_cube(current_context(), target)
    return target


def select_alone(context: Context, target: bpy.types.Object) -> None:
    """Select an object and make it the active one, unless the artist is editing or painting another."""
    active = context.view_layer.objects.active
    if (active is not None and active.mode != "OBJECT") or target.name not in context.view_layer.objects:
        return
    for one in context.view_layer.objects:
        if one.select_get():
            one.select_set(False)
    target.select_set(True)
    context.view_layer.objects.active = target


def write_positions(scene: Scene) -> None:
    """Write the positions that the mesh is animated with, where they are not there yet; the cursor shows how far it is.

    Raises:
        SceneError: they cannot be written.
    """
    windows = current_context().window_manager
    windows.progress_begin(0, scene.manifest.frames)
    try:
        positions_file(scene, lambda done, total: windows.progress_update(done))
    finally:
        windows.progress_end()


def add_footage_background(camera: bpy.types.Object, image: bpy.types.Image, frames: int, frame_start: int) -> None:
    """Give the source camera the footage as a background image, disabled, to compare with."""
    data = camera_data(camera)
    background = data.background_images.new()
    background.image = image
    background.display_depth = "FRONT"
    background.alpha = 0.5
    user = background.image_user
    user.use_auto_refresh = True
    user.frame_start, user.frame_duration, user.frame_offset = frame_start, frames, 0
    data.show_background_images = False


def fit_camera(camera: bpy.types.Object, scene: Scene) -> None:
    """Let a camera see all of the scene's depth, whatever its units, and be drawn before it, not across it.

    Cameras made later start with the same.
    """
    data, (near, far) = camera_data(camera), scene.manifest.depth_range
    data.clip_start, data.clip_end = min(data.clip_start, _CLIP_NEAR * near), max(data.clip_end, _CLIP_FAR * far)
    data.display_size = _DRAWN_SIZE * near


def note_footage(link: EX4D_SceneLink, scene: Scene, source: CameraPath) -> None:
    """Keep what a Blender scene can be matched to: frame rate, size and pixel aspect of the footage."""
    manifest = scene.manifest
    optics = blender_from_intrinsics(source.intrinsics[0], source.width, source.height)
    # Blender's rate is an integer over a base: 30000/1001 is 30 over 1.001.
    link.fps = max(1, round(manifest.fps))
    link.fps_base = link.fps / float(manifest.fps)
    link.size = manifest.width, manifest.height
    link.pixel_aspect = optics.pixel_aspect_x, optics.pixel_aspect_y
