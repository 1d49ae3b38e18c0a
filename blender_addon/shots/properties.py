"""The shots that a .blend stores: any number in a scene, one of them active.

``Scene.ex4d_shots`` lists them; `active_shot` is the one that panels and operators use. A scene with an empty list has
an unlisted shot, so that an artist can make a take without adding a shot first.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import bpy

from ex4d_core.output_settings import MAX_SPACE
from ex4d_core.render_settings import MAX_SAMPLES, RenderSettings

from ..blender_types import BlenderScene
from ..scenes.link import is_scene_object
from .final_settings import EX4D_Final
from .memory import memory_property
from .occlusion import occlusion_property
from .source_time import copy_time, follow_time, rename_animation

# The settings that a new shot copies.
_SETTINGS = (
    "scene_object",
    "use_range",
    "frame_start",
    "frame_end",
    "holes",
    "hole_color",
    "occlusion",
    "memory",
    "samples",
    "output_space",
    "use_motion",
    "use_exr",
)
DEFAULT_LABEL = "take"


def _is_scene(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return is_scene_object(candidate)


def _is_camera(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return candidate.type == "CAMERA"


def _follow_time(shot: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    follow_time(shot.id_data)


def _show_shot(blender_scene: Any, _: bpy.types.Context | None = None) -> None:
    """Look through the active shot's camera, and show its time in viewports."""
    follow_time(blender_scene)
    shot = active_shot(blender_scene)
    if not shot.use_active_camera and shot.camera is not None and shot.camera.name in blender_scene.objects:
        blender_scene.camera = shot.camera


def _use_chosen_camera(shot: Any, _: bpy.types.Context) -> None:
    """Look through a camera as soon as it is chosen; the shot is named after it, unless the artist has named it."""
    blender_scene, camera = shot.id_data, shot.camera
    if camera is None:
        return
    shot.use_active_camera = False
    if shot.label in (DEFAULT_LABEL, shot.camera_label):
        shot.label = shot.camera_label = free_label(blender_scene, label_for(camera), besides=shot)
    if shot == active_shot(blender_scene):
        _show_shot(blender_scene)


class EX4D_Shot(bpy.types.PropertyGroup):
    """A shot: a camera and a frame range in an imported scene, and the settings of its takes."""

    key: bpy.props.StringProperty(description="Identifier of the shot, which its takes refer to")
    scene_object: bpy.props.PointerProperty(
        name="Scene",
        description="Imported scene to shoot",
        type=bpy.types.Object,
        poll=_is_scene,
        update=_follow_time,
    )
    camera: bpy.props.PointerProperty(
        name="Camera",
        description="Camera to shoot with; choosing it makes it the active camera",
        type=bpy.types.Object,
        poll=_is_camera,
        update=_use_chosen_camera,
    )
    use_active_camera: bpy.props.BoolProperty(
        name="Follow Active Camera",
        description="Shoot with the scene's active camera, and cut where markers switch cameras",
        default=False,
    )
    label: bpy.props.StringProperty(
        name="Label", description="Name of the shot and its takes", default=DEFAULT_LABEL, maxlen=200
    )
    camera_label: bpy.props.StringProperty(description="Label that the shot was given for its camera")
    marker: bpy.props.StringProperty(description="Name of the marker that the shot was made of")
    use_range: bpy.props.BoolProperty(
        name="Custom Range", description="Override the frame range of the scene", default=False
    )
    frame_start: bpy.props.IntProperty(name="Start Frame", description="First frame of the shot", default=1)
    frame_end: bpy.props.IntProperty(name="End Frame", description="Last frame of the shot", default=49)
    use_source_frame: bpy.props.BoolProperty(
        name="Retime",
        description="Show the moments of Source Frame, which can be animated, instead of those of the current frame",
        default=False,
        update=_follow_time,
    )
    source_frame: bpy.props.FloatProperty(
        name="Source Frame",
        description="Frame at which the footage ordinarily shows the moment; the nearest frame of the footage is used, "
        "and its first or last one beyond its ends",
        default=1.0,
        step=100,
        precision=2,
    )
    holes: bpy.props.EnumProperty(
        name="Unseen",
        description="How previews show areas that the footage did not see",
        items=(
            ("fill", "Fill", "Fill smoothly from the surroundings"),
            ("mark", "Mark", "Show in a flat color"),
        ),
        default="fill",
    )
    hole_color: bpy.props.FloatVectorProperty(
        name="Color",
        description="Color of areas that the footage did not see",
        subtype="COLOR_GAMMA",
        size=3,
        min=0.0,
        max=1.0,
        default=(1.0, 0.0, 1.0),
    )
    occlusion: occlusion_property
    memory: memory_property
    samples: bpy.props.IntProperty(
        name="Samples",
        description="Rays of each pixel, horizontally and vertically; more give smoother edges, 1 is fastest",
        default=RenderSettings().samples,
        min=1,
        max=MAX_SAMPLES,
    )
    output_space: bpy.props.StringProperty(
        name="Output Space",
        description="Color space of EXR files, by OpenColorIO's name, such as ACEScg; leave empty for the scene's own",
        maxlen=MAX_SPACE,
    )
    use_motion: bpy.props.BoolProperty(
        name="Motion Vectors",
        description="Passes also have the motion of the new camera, in pixels, to the next frame and the one before",
    )
    use_exr: bpy.props.BoolProperty(
        name="Takes as EXR", description="Takes also come as EXR files in half floats, beside their frames of 8 bits"
    )
    final: bpy.props.PointerProperty(description="Settings for final takes of the shot", type=EX4D_Final)


CLASSES = (EX4D_Shot,)


def active_shot(blender_scene: BlenderScene) -> EX4D_Shot:
    """The active shot; changes nothing, so panels may call this while they draw."""
    shots = blender_scene.ex4d_shots
    if not len(shots):
        return blender_scene.ex4d_unlisted_shot
    return shots[min(max(blender_scene.ex4d_shot_index, 0), len(shots) - 1)]


def listed_shot(blender_scene: BlenderScene) -> EX4D_Shot:
    """The active shot, added to the list if it is not there."""
    shots = blender_scene.ex4d_shots
    if not len(shots):
        unlisted = blender_scene.ex4d_unlisted_shot
        first = shots.add()
        for name in ("key", "camera", "label", "camera_label", "use_active_camera"):  # choosing a camera sets others
            setattr(first, name, getattr(unlisted, name))
        path = unlisted.path_from_id()
        _copy_settings(unlisted, first, copy_curve=False)
        rename_animation(blender_scene, {path: first.path_from_id()})
        unlisted.use_source_frame = False
    return active_shot(blender_scene)


def key_of(shot: EX4D_Shot) -> str:
    """The shot's key, created if it has none."""
    if not shot.key:
        shot.key = uuid.uuid4().hex
    return shot.key


def add_shot(blender_scene: BlenderScene, camera: bpy.types.Object | None = None) -> EX4D_Shot:
    """Add a shot with the active one's settings, and make it the active one."""
    blender_scene.ex4d_shots.add()
    shots = blender_scene.ex4d_shots  # adding may move the others
    shot = shots[-1]
    listed = shots[min(max(blender_scene.ex4d_shot_index, 0), len(shots) - 2)] if len(shots) > 1 else None
    _copy_settings(listed or blender_scene.ex4d_unlisted_shot, shot)
    if camera is None:
        shot.label = shot.camera_label = free_label(blender_scene, "shot", besides=shot)
    shot.camera = camera
    blender_scene.ex4d_shot_index = len(shots) - 1
    return shot


def find_shot(blender_scene: BlenderScene, key: str) -> EX4D_Shot | None:
    """The shot with that key, or None."""
    shots = [*blender_scene.ex4d_shots] or [blender_scene.ex4d_unlisted_shot]
    return next((shot for shot in shots if key and shot.key == key), None)


def label_for(camera: bpy.types.Object) -> str:
    """A label for a shot with this camera: "orbit" for "Camera orbit.001"."""
    return re.sub(r"\.\d{3}$", "", camera.name.removeprefix("Camera "))


def free_label(blender_scene: BlenderScene, wanted: str, besides: EX4D_Shot | None = None) -> str:
    """``wanted``, followed by a number if another shot has that label."""
    taken = {shot.label for shot in blender_scene.ex4d_shots if shot != besides}
    label, number = wanted, 2
    while label in taken:
        label, number = f"{wanted} {number}", number + 1
    return label


def _copy_settings(source: EX4D_Shot, target: EX4D_Shot, *, copy_curve: bool = True) -> None:
    if copy_curve:
        copy_time(source, target)
    else:
        target.source_frame, target.use_source_frame = source.source_frame, source.use_source_frame
    for name in _SETTINGS:
        setattr(target, name, getattr(source, name))
    for name in EX4D_Final.__annotations__:  # the preset first, since it sets others
        setattr(target.final, name, getattr(source.final, name))


PROPERTIES = (
    (bpy.types.Scene, "ex4d_shots", bpy.props.CollectionProperty(type=EX4D_Shot)),
    (
        bpy.types.Scene,
        "ex4d_shot_index",
        bpy.props.IntProperty(
            name="Shot", description="Active shot; its camera becomes the active camera", update=_show_shot
        ),
    ),
    (bpy.types.Scene, "ex4d_unlisted_shot", bpy.props.PointerProperty(type=EX4D_Shot)),
    # For scripts: the active shot.
    (bpy.types.Scene, "ex4d_shot", property(active_shot)),
)
