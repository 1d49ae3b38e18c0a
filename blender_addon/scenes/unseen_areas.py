"""Marks in viewports what the footage did not see: stretched faces, and what is outside of the footage's frame.

Through a camera both have the unseen colour in full, since a take has to invent them; what other frames of the footage
saw, where the shot remembers it, is blue (see `remembered_areas`). In all other views that would bury what was seen, so
stretched faces are ghosts there, near the viewport's background and behind all of the footage, and a line runs around
its frame.

A GPU shader draws this over the mesh, in all shadings (see `viewport_looks`): every face that the source camera sees
edge-on gets the unseen colour, unless it continues a plane or is viewed from the source camera's position. Through a
camera it ends where the space behind a silhouette is no longer solid by the shot's occlusion model (see `back_limits`).
Beyond, and in ghosts, the nearest footage behind shows, from a picture without stretched faces. The scene's material,
which Blender's own renders show, has the unseen colour on all of these faces (see `material`). Per frame only vertex
positions and what follows from them go to the GPU (see `gpu_meshes`), and the footage is the texture that viewports
have loaded, so playback stays fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import gpu
import mathutils

from ex4d_core.render_settings import OcclusionModel

from ..blender_types import Context, current_context
from ..shots.occlusion import occlusion_of
from ..shots.properties import active_shot
from .back_limits import BackLimits, forget_shader, measure, plane_textures, solid_textures
from .face_shaders import (
    DEPTH_OFFSET,
    GHOST,
    PLANE,
    REMEMBERED,
    SEEN,
    SEEN_AND_SOLID,
    STRETCHED,
    UNSEEN,
    UNSEEN_OR_REMEMBERED,
    draw_batch,
    face_shader,
    face_shaders,
)
from .footage_frame import draw_borders, fill_outside
from .gpu_meshes import batches_of, gpu_meshes
from .link import images_of, is_scene_object, link_of
from .material import SOURCE_EYE
from .mesh import mesh_data
from .missing import missing_scenes
from .remembered_areas import draw_known, forget, shows_memory, upload_key_frames
from .stand_in import MISSING_COLOR
from .viewport_looks import look_of

# Outside of camera views: how much stretched faces have of the unseen colour; the rest is the viewport's background.
# Chosen from pictures of two scenes from six views.
_GHOST_TINT = 0.02
# Viewports of different sizes whose pictures are kept; dragging a border of an area makes many.
_MOST_PICTURES = 4

# By their sizes, those of the viewports on the screen; each with the view and the scenes that it shows.
_pictures: dict[tuple[int, ...], tuple[gpu.types.GPUOffScreen, object]] = {}
# Likewise, of what other frames of the footage saw.
_known_pictures: dict[tuple[int, ...], tuple[gpu.types.GPUOffScreen, object]] = {}
_handler: object | None = None


def _draw() -> None:
    context = current_context()
    space = context.space_data
    visible = [
        one
        for one in context.view_layer.objects
        if is_scene_object(one) and one.get(SOURCE_EYE) is not None and one.visible_in_viewport_get(space)
    ]
    if not visible:
        return
    to_screen = gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix()
    camera = space.camera if context.region_data.view_perspective == "CAMERA" else None
    look, has_overlays = look_of(space, context.scene), space.overlay.show_overlays
    gpu.state.depth_test_set("LESS_EQUAL")
    gpu.state.blend_set("ALPHA")
    if look.surfaces:
        _cover_missing(context, [one for one in visible if missing_scenes.folder_of(one) is not None])
        there = [one for one in visible if missing_scenes.folder_of(one) is None]
        for one in there:
            _limits_of(context, one)  # before any picture is bound, since this draws into others
        if look.material:
            _draw_planes(context, there, to_screen)
        if camera is None:
            _draw_ghosts(context, there, to_screen, look.footage)
        else:
            _draw_unseen(context, there, camera, to_screen, look.footage)
    if has_overlays and camera is None:
        draw_borders(context, visible)
    elif has_overlays and not any(camera == link_of(one).source_camera for one in visible):
        known = _known(context, visible, to_screen) if look.surfaces else None
        fill_outside(context, camera, to_screen, (*link_of(visible[0]).unseen_color, 1.0), known)
    gpu.state.blend_set("NONE")
    gpu.state.depth_test_set("NONE")


def _known(
    context: Context, visible: list[bpy.types.Object], to_screen: mathutils.Matrix
) -> gpu.types.GPUOffScreen | None:
    """What other frames saw, one in each channel, drawn where the view has changed; None where none is remembered."""
    scenes = [one for one in visible if shows_memory(context.scene, one)]
    if not scenes:
        return None
    size = tuple(gpu.state.viewport_get()[2:])
    to_world = [one.evaluated_get(context.evaluated_depsgraph_get()).matrix_world.copy() for one in scenes]
    shown = (to_screen.copy(), [one.session_uid for one in scenes], to_world)
    picture, before = _known_pictures.get(size, (None, None))
    if picture is None:
        if len(_known_pictures) >= _MOST_PICTURES:
            _known_pictures.clear()
        picture = gpu.types.GPUOffScreen(*size)
    if before != shown:
        evaluated = {one: one.evaluated_get(context.evaluated_depsgraph_get()) for one in scenes}
        drawn = [one for one in scenes if batches_of(one, mesh_data(evaluated[one])) is not None]
        for one in drawn:
            upload_key_frames(one, gpu_meshes[one.session_uid])
        with picture.bind():
            gpu.state.active_framebuffer_get().clear(color=(0.0, 0.0, 0.0, 0.0))
            gpu.state.depth_test_set("NONE")  # what one frame sees behind what another sees counts, too
            gpu.state.blend_set("NONE")
            for one in drawn:
                to_world = evaluated[one].matrix_world
                draw_known(one, to_screen @ to_world, to_world.inverted_safe() @ _viewer(context.region_data))
            gpu.state.blend_set("ALPHA")
            gpu.state.depth_test_set("LESS_EQUAL")
        _known_pictures[size] = picture, shown
    return picture


def _draw_planes(context: Context, visible: list[bpy.types.Object], to_screen: mathutils.Matrix) -> None:
    """Draw the footage over faces that continue a plane, which the scene's material takes for stretched ones."""
    for one in visible:
        limits, texture = _limits_of(context, one), _footage_of(one)
        if limits is not None and texture is not None:
            _draw_faces(context, one, to_screen, PLANE, footage=texture)


def _draw_ghosts(
    context: Context, visible: list[bpy.types.Object], to_screen: mathutils.Matrix, has_footage: bool
) -> None:
    """Draw stretched faces near the background, and the footage behind them in front of that.

    Args:
        context: the viewport's.
        visible: the scenes.
        to_screen: from the world.
        has_footage: whether the viewport shows it; else ghosts cover what is behind them.
    """
    footage = {one: texture for one in visible if has_footage and (texture := _footage_of(one)) is not None}
    picture = _picture(context, to_screen, footage, {})
    for one in visible:
        color = _ghost(context, link_of(one).unseen_color)
        _draw_faces(context, one, to_screen, GHOST, color=color, seen=picture.texture_color)


def _draw_unseen(
    context: Context,
    visible: list[bpy.types.Object],
    camera: bpy.types.Object,
    to_screen: mathutils.Matrix,
    has_footage: bool,
) -> None:
    """Draw what a camera's take has to invent: the solid part of stretched faces by the shot's occlusion model.

    Behind that part the footage shows again, or nothing, which is unseen as well. Where the viewport shows no footage,
    stretched faces are solid throughout. Where other frames of the footage saw the area, it is remembered.

    Args:
        context: the viewport's.
        visible: the scenes.
        camera: that the viewport looks through.
        to_screen: from the world.
        has_footage: whether the viewport shows it.
    """
    limits = {one: found for one in visible if has_footage and (found := _solid_limits_of(context, one)) is not None}
    footage = {one: texture for one in limits if (texture := _footage_of(one)) is not None}
    picture = _picture(context, to_screen, footage, limits) if footage else None
    for one in visible:
        values: dict[str, Any] = {"color": (*link_of(one).unseen_color, 1.0)}
        known = None if camera == link_of(one).source_camera else _known(context, visible, to_screen)
        if known is not None:
            values["known"] = known.texture_color
        if picture is None or one not in footage:
            fragment = STRETCHED if known is None else REMEMBERED
        else:
            fragment = UNSEEN if known is None else UNSEEN_OR_REMEMBERED
            values |= {"seen": picture.texture_color, **solid_textures(limits[one])}
        _draw_faces(context, one, to_screen, fragment, **values)


def _occlusion_of(context: Context, scene_object: bpy.types.Object) -> OcclusionModel:
    """The active shot's occlusion model for a scene."""
    return occlusion_of(active_shot(context.scene).occlusion, "preview", link_of(scene_object).convention)


def _solid_limits_of(context: Context, scene_object: bpy.types.Object) -> BackLimits | None:
    """Where stretched faces end by the active shot's occlusion model; None where they do not."""
    return None if _occlusion_of(context, scene_object) == "watertight" else _limits_of(context, scene_object)


def _limits_of(context: Context, scene_object: bpy.types.Object) -> BackLimits | None:
    """What is measured of the shown frame; None for a mesh without the rules of the "centered" convention."""
    if link_of(scene_object).convention == "reference":
        return None
    evaluated = scene_object.evaluated_get(context.evaluated_depsgraph_get())
    if batches_of(scene_object, mesh_data(evaluated)) is None:
        return None
    uploaded, occlusion = gpu_meshes[scene_object.session_uid], _occlusion_of(context, scene_object)
    if occlusion not in uploaded.limits:
        eye = mathutils.Vector(evaluated[SOURCE_EYE])
        uploaded.limits[occlusion] = measure(scene_object, uploaded.positions, eye, occlusion)
    return uploaded.limits[occlusion]


def _picture(
    context: Context,
    to_screen: mathutils.Matrix,
    footage: dict[bpy.types.Object, gpu.types.GPUTexture],
    limits: dict[bpy.types.Object, BackLimits],
) -> gpu.types.GPUOffScreen:
    """The footage in linear colours, drawn where the view or anything else has changed.

    Stretched faces are left out, but for what ``limits`` make solid of them, in the unseen colour.
    """
    size = tuple(gpu.state.viewport_get()[2:])
    shown = (to_screen.copy(), [(one.session_uid, limits.get(one), *link_of(one).unseen_color) for one in footage])
    picture, before = _pictures.get(size, (None, None))
    if picture is None:
        if len(_pictures) >= _MOST_PICTURES:
            _pictures.clear()
        picture = gpu.types.GPUOffScreen(*size, format="RGBA32F")
    if before != shown:
        with picture.bind():
            gpu.state.active_framebuffer_get().clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
            gpu.state.depth_mask_set(True)
            gpu.state.blend_set("NONE")  # alpha tells what is drawn, and its depth
            for one, texture in footage.items():
                if one in limits:
                    values = {"color": (*link_of(one).unseen_color, 1.0), **solid_textures(limits[one])}
                    _draw_faces(context, one, to_screen, SEEN_AND_SOLID, footage=texture, **values)
                else:
                    _draw_faces(context, one, to_screen, SEEN, footage=texture)
            gpu.state.blend_set("ALPHA")
            gpu.state.depth_mask_set(False)
        _pictures[size] = picture, shown
    return picture


def _forget_shown() -> None:
    """Have the pictures drawn again: something in the file has changed."""
    for size, (picture, _) in _pictures.items():
        _pictures[size] = picture, None


def _footage_of(scene_object: bpy.types.Object) -> gpu.types.GPUTexture | None:
    """The footage's frame as Solid view shows it; None where it shows none."""
    images = images_of(scene_object)
    try:
        return gpu.texture.from_image(images[0]) if images else None
    except RuntimeError:  # it cannot be read
        return None


def _draw_faces(
    context: Context, scene_object: bpy.types.Object, to_screen: mathutils.Matrix, fragment: str, **values: Any
) -> None:
    """Draw a scene's faces with one of the shaders of `face_shaders`, and its color and textures."""
    evaluated = scene_object.evaluated_get(context.evaluated_depsgraph_get())
    if (batches := batches_of(scene_object, mesh_data(evaluated))) is None:
        return
    viewer = evaluated.matrix_world.inverted_safe() @ _viewer(context.region_data)
    eye, limits = tuple(evaluated[SOURCE_EYE]), _limits_of(context, scene_object)
    values |= plane_textures(limits)
    shader = face_shader(fragment, limits is not None)
    draw_batch(shader, batches[0], to_screen @ evaluated.matrix_world, eye, viewer, **values)


def _ghost(context: Context, unseen: Sequence[float]) -> tuple[float, ...]:
    """The unseen colour, moved towards the viewport's background."""
    # Themes have display colours, shaders write linear ones.
    background = mathutils.Color(
        context.preferences.themes[0].view_3d.space.gradients.high_gradient
    ).from_srgb_to_scene_linear()
    mixed = (_GHOST_TINT * one + (1.0 - _GHOST_TINT) * other for one, other in zip(unseen, background, strict=True))
    return *mixed, 1.0


def _cover_missing(context: Context, missing: list[bpy.types.Object]) -> None:
    """Draw meshes without their footage in gray, over the magenta that Blender shows for a missing image."""
    depsgraph = context.evaluated_depsgraph_get()
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    nearer = mathutils.Matrix()
    nearer[2][3] = -DEPTH_OFFSET
    for one in missing:
        evaluated = one.evaluated_get(depsgraph)
        if (batches := batches_of(one, mesh_data(evaluated))) is None:
            continue
        shader.bind()
        shader.uniform_float("color", MISSING_COLOR)
        with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            gpu.matrix.load_projection_matrix(nearer @ gpu.matrix.get_projection_matrix())
            gpu.matrix.multiply_matrix(evaluated.matrix_world)
            batches[0].draw(shader)


def _viewer(view: bpy.types.RegionView3D) -> mathutils.Vector:
    """The viewer's position and 1; in an orthographic viewport the direction to the viewer and 0."""
    columns = view.view_matrix.inverted().transposed()
    return columns[3].copy() if view.is_perspective else columns[2].copy()


@bpy.app.handlers.persistent
def _after_frame(*_: object) -> None:
    _forget_shown()
    for uploaded in gpu_meshes.values():
        uploaded.batches = None


@bpy.app.handlers.persistent
def _after_update(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    _forget_shown()
    for update in depsgraph.updates if gpu_meshes else ():
        uploaded = gpu_meshes.get(update.id.session_uid) if isinstance(update.id, bpy.types.Object) else None
        if uploaded is not None and update.is_updated_geometry:
            uploaded.batches = None


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _forget_shown()
    gpu_meshes.clear()
    _known_pictures.clear()
    forget()


HANDLERS = (("frame_change_post", _after_frame), ("depsgraph_update_post", _after_update), ("load_post", _after_load))


def register() -> None:
    """Draw in every 3D viewport; nothing is drawn in the background."""
    global _handler
    if not bpy.app.background:
        _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    """Stop drawing."""
    global _handler
    if _handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
    _handler = None
    face_shaders.clear()
    forget_shader()
    _pictures.clear()
    _known_pictures.clear()
    forget()
    gpu_meshes.clear()
