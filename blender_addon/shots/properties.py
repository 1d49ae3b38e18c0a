"""What a .blend remembers of its shots: any number a scene, one of them active.

``Scene.ex4d_shots`` lists them; `active_shot` is the one that the panels and the Preview button speak of. A scene
whose list is empty has one all the same, unlisted, so that nothing has to be made before the first take.
"""

from __future__ import annotations

import re
import uuid

import bpy

from ..scenes.link import is_scene_object
from .final import EX4D_Final

# What a new shot takes over from the one before it.
_SETTINGS = ("scene_object", "use_range", "frame_start", "frame_end", "holes", "hole_color")
DEFAULT_LABEL = "take"


def _is_scene(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return is_scene_object(candidate)


def _is_camera(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return candidate.type == "CAMERA"


def _look_through(blender_scene: bpy.types.Scene, _: bpy.types.Context) -> None:
    """A shot that is picked is looked through, as its takes will be."""
    camera = active_shot(blender_scene).camera
    if camera is not None and camera.name in blender_scene.objects:
        blender_scene.camera = camera


class EX4D_Shot(bpy.types.PropertyGroup):
    """A shot to make takes of."""

    key: bpy.props.StringProperty(description="Our own name of the shot, by which its takes find it")
    scene_object: bpy.props.PointerProperty(
        name="Scene", description="The imported scene to shoot in", type=bpy.types.Object, poll=_is_scene
    )
    camera: bpy.props.PointerProperty(
        name="Camera", description="The camera to shoot with", type=bpy.types.Object, poll=_is_camera
    )
    label: bpy.props.StringProperty(
        name="Label", description="What to call the shot and its takes", default=DEFAULT_LABEL, maxlen=200
    )
    use_range: bpy.props.BoolProperty(
        name="Own Range", description="Choose the frames, instead of the scene's frame range", default=False
    )
    frame_start: bpy.props.IntProperty(name="First Frame", description="The first frame to make", default=1)
    frame_end: bpy.props.IntProperty(name="Last Frame", description="The last frame to make", default=49)
    holes: bpy.props.EnumProperty(
        name="Unseen",
        description="What the preview does where the footage saw nothing",
        items=(
            ("fill", "Fill", "Fill smoothly from around"),
            ("mark", "Mark", "Show in one flat colour"),
        ),
        default="fill",
    )
    hole_color: bpy.props.FloatVectorProperty(
        name="Colour",
        description="The colour that marks what the footage did not see",
        subtype="COLOR_GAMMA",
        size=3,
        min=0.0,
        max=1.0,
        default=(1.0, 0.0, 1.0),
    )
    final: bpy.props.PointerProperty(description="How finals of the shot are made", type=EX4D_Final)


CLASSES = (EX4D_Shot,)


def active_shot(blender_scene: bpy.types.Scene) -> EX4D_Shot:
    """The shot that the panels speak of; changes nothing, so panels may ask while they draw."""
    shots = blender_scene.ex4d_shots
    if not len(shots):
        return blender_scene.ex4d_unlisted_shot
    return shots[min(max(blender_scene.ex4d_shot_index, 0), len(shots) - 1)]


def listed_shot(blender_scene: bpy.types.Scene) -> EX4D_Shot:
    """The active shot, put on the list if it is not there."""
    shots = blender_scene.ex4d_shots
    if not len(shots):
        unlisted = blender_scene.ex4d_unlisted_shot
        first = shots.add()
        first.key, first.camera, first.label = unlisted.key, unlisted.camera, unlisted.label
        _take_over(first, unlisted)
    return active_shot(blender_scene)


def key_of(shot: EX4D_Shot) -> str:
    """The shot's key, made now if it has none."""
    if not shot.key:
        shot.key = uuid.uuid4().hex
    return shot.key


def add_shot(blender_scene: bpy.types.Scene, camera: bpy.types.Object | None = None) -> EX4D_Shot:
    """A further shot with the active one's settings, and make it the active one."""
    blender_scene.ex4d_shots.add()
    shots = blender_scene.ex4d_shots  # adding may move the others
    shot = shots[-1]
    before = shots[min(max(blender_scene.ex4d_shot_index, 0), len(shots) - 2)] if len(shots) > 1 else None
    _take_over(shot, before or blender_scene.ex4d_unlisted_shot)
    shot.camera = camera
    shot.label = free_label(blender_scene, label_for(camera) if camera else "shot", besides=shot)
    blender_scene.ex4d_shot_index = len(shots) - 1
    return shot


def find_shot(blender_scene: bpy.types.Scene, key: str) -> EX4D_Shot | None:
    """The shot of that key, or None."""
    shots = [*blender_scene.ex4d_shots] or [blender_scene.ex4d_unlisted_shot]
    return next((shot for shot in shots if key and shot.key == key), None)


def label_for(camera: bpy.types.Object) -> str:
    """What a shot with this camera may be called: "orbit" for "Camera orbit.001"."""
    return re.sub(r"\.\d{3}$", "", camera.name.removeprefix("Camera "))


def free_label(blender_scene: bpy.types.Scene, wanted: str, besides: EX4D_Shot | None = None) -> str:
    """``wanted``, with a number behind it if another shot is called so."""
    taken = {shot.label for shot in blender_scene.ex4d_shots if shot != besides}
    label, number = wanted, 2
    while label in taken:
        label, number = f"{wanted} {number}", number + 1
    return label


def _take_over(shot: EX4D_Shot, before: EX4D_Shot) -> None:
    for name in _SETTINGS:
        setattr(shot, name, getattr(before, name))
    for name in EX4D_Final.__annotations__:  # the preset first, since it sets others
        setattr(shot.final, name, getattr(before.final, name))


def register() -> None:
    bpy.types.Scene.ex4d_shots = bpy.props.CollectionProperty(type=EX4D_Shot)
    bpy.types.Scene.ex4d_shot_index = bpy.props.IntProperty(
        name="Shot", description="The shot to work on; picking one looks through its camera", update=_look_through
    )
    bpy.types.Scene.ex4d_unlisted_shot = bpy.props.PointerProperty(type=EX4D_Shot)
    # For scripts: the active shot, whichever that is.
    bpy.types.Scene.ex4d_shot = property(active_shot)


def unregister() -> None:
    del bpy.types.Scene.ex4d_shot
    del bpy.types.Scene.ex4d_unlisted_shot
    del bpy.types.Scene.ex4d_shot_index
    del bpy.types.Scene.ex4d_shots
