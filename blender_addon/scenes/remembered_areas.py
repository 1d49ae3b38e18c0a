"""What other frames of the footage saw, for viewports: their meshes, drawn from the camera in one flat picture.

An approximation of the backend's memory, which compares depth and colour and knows cuts: an area counts where two of a
few frames across the footage see anything. `unseen_areas` gives these areas their own colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import gpu
import mathutils
import numpy as np

from ex4d_core.errors import Ex4dError

from ..shots.memory import remember_of
from ..shots.properties import active_shot
from .back_limits import BackLimits, measure, plane_textures
from .face_shaders import KNOWN, draw_batch, face_shader
from .link import link_of, open_scene
from .mesh import positions_of_frame

# Frames across the footage whose meshes are kept on the GPU: 3 MB each for 512x512, and one drawing for each new view.
# As many as a picture has channels.
_KEY_FRAMES = 4


@dataclass(frozen=True)
class _KeyFrame:
    batch: gpu.types.GPUBatch
    eye: tuple[float, ...]  # of the source camera, in the object's space
    limits: BackLimits | None  # for the faces that continue a plane


# By the session's identifiers of scene objects; empty where a package cannot be read.
_key_frames: dict[int, list[_KeyFrame]] = {}


def shows_memory(blender_scene: bpy.types.Scene, scene_object: bpy.types.Object) -> bool:
    """Whether the active shot's previews of a scene remember."""
    return remember_of(active_shot(blender_scene).memory, "preview", link_of(scene_object).convention)


def spread(frames: int) -> list[int]:
    """Up to `_KEY_FRAMES` of a footage's frames, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, frames - 1, _KEY_FRAMES)})


def upload_key_frames(scene_object: bpy.types.Object, mesh: Any) -> None:
    """Have a scene's key frames on the GPU; not while a picture is bound, since this draws into others.

    Args:
        scene_object: of the scene.
        mesh: its faces, uvs and number of vertices on the GPU.
    """
    if scene_object.session_uid not in _key_frames:
        _key_frames[scene_object.session_uid] = _uploaded(scene_object, mesh)


def draw_known(
    scene_object: bpy.types.Object,
    to_screen: mathutils.Matrix,
    viewer: mathutils.Vector,
) -> None:
    """Draw what the key frames of a scene see into the bound picture, each into a channel of its own.

    Args:
        scene_object: of the scene, after `upload_key_frames`.
        to_screen: from the object's space.
        viewer: in the object's space; see `face_shaders`.
    """
    for channel, key in enumerate(_key_frames[scene_object.session_uid]):
        gpu.state.color_mask_set(*(channel == other for other in range(_KEY_FRAMES)))
        shader = face_shader(KNOWN, key.limits is not None)
        draw_batch(shader, key.batch, to_screen, key.eye, viewer, **plane_textures(key.limits))
    gpu.state.color_mask_set(*[True] * _KEY_FRAMES)


def forget() -> None:
    """Free the meshes: another file has been loaded, or the add-on is disabled."""
    _key_frames.clear()


def _uploaded(scene_object: bpy.types.Object, mesh: Any) -> list[_KeyFrame]:
    if mesh.faces is None or mesh.uvs is None:
        return []
    try:
        package = open_scene(scene_object)
        poses = package.source_camera().camera_to_world
        numbers = spread(package.manifest.frames)
        positions = [positions_of_frame(package, number, mesh.vertices) for number in numbers]
    except (Ex4dError, OSError):  # the panel says so
        return []
    layout = gpu.types.GPUVertFormat()
    layout.attr_add(id="pos", comp_type="F32", len=3, fetch_mode="FLOAT")
    keys = []
    for number, values in zip(numbers, positions, strict=True):
        buffer = gpu.types.GPUVertBuf(layout, mesh.vertices)
        points: Any = np.ascontiguousarray(values.reshape(-1, 3))
        buffer.attr_fill("pos", points)
        batch = gpu.types.GPUBatch(type="TRIS", buf=buffer, elem=mesh.faces)
        batch.vertbuf_add(mesh.uvs)
        eye = tuple(poses[number, :3, 3].tolist())
        keys.append(_KeyFrame(batch, eye, measure(scene_object, values.reshape(-1), mathutils.Vector(eye), "open")))
    return keys
