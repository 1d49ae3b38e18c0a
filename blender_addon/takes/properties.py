"""What a .blend remembers of shots and takes, so that a reopened file goes on where it was."""

from __future__ import annotations

import bpy

from ..paths import PATH_OPTIONS
from ..scenes.link import is_scene_object


def _is_scene(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return is_scene_object(candidate)


def _is_camera(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return candidate.type == "CAMERA"


class EX4D_Shot(bpy.types.PropertyGroup):
    """The shot to make next (``Scene.ex4d_shot``)."""

    scene_object: bpy.props.PointerProperty(
        name="Scene", description="The imported scene to shoot in", type=bpy.types.Object, poll=_is_scene
    )
    camera: bpy.props.PointerProperty(
        name="Camera", description="The camera to shoot with", type=bpy.types.Object, poll=_is_camera
    )
    label: bpy.props.StringProperty(name="Label", description="What to call the take", default="take", maxlen=200)
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


class EX4D_Take(bpy.types.PropertyGroup):
    """One take (in ``Scene.ex4d_takes``); ``follow`` keeps it up to date.

    ``state`` is "sending", one of the backend's job states, or "stopped" when the add-on could not go on.
    """

    label: bpy.props.StringProperty(name="Label", description="What the take is called")
    key: bpy.props.StringProperty(description="Our own name of the submission")
    job: bpy.props.StringProperty(description="The backend's name of the job")
    last_event: bpy.props.IntProperty(description="The last event that was dealt with")
    folder: bpy.props.StringProperty(
        name="Folder", description="Where frames and movies are", subtype="DIR_PATH", options=PATH_OPTIONS
    )
    frame_start: bpy.props.IntProperty(description="The frame at which the take starts")
    frames: bpy.props.IntProperty(description="Frames of the take")
    state: bpy.props.StringProperty(description="How the take stands", default="sending")
    stage: bpy.props.StringProperty(description="What the backend is at")
    progress: bpy.props.FloatProperty(description="How far it is, from 0 to 1", min=0.0, max=1.0)
    reason: bpy.props.StringProperty(description="Why it failed or stopped")


CLASSES = (EX4D_Shot, EX4D_Take)


def find_take(key: str) -> tuple[bpy.types.Scene, EX4D_Take] | None:
    """The Blender scene that holds a take, and its entry there; None when the open file has none."""
    for scene in bpy.data.scenes:
        for take in scene.ex4d_takes:
            if take.key == key:
                return scene, take
    return None


def register() -> None:
    bpy.types.Scene.ex4d_shot = bpy.props.PointerProperty(type=EX4D_Shot)
    bpy.types.Scene.ex4d_takes = bpy.props.CollectionProperty(type=EX4D_Take)


def unregister() -> None:
    del bpy.types.Scene.ex4d_takes
    del bpy.types.Scene.ex4d_shot
