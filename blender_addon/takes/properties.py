"""What a .blend remembers of takes, so that a reopened file goes on where it was."""

from __future__ import annotations

import bpy

from ..connection.errands import own_scenes
from ..paths import PATH_OPTIONS


class EX4D_Take(bpy.types.PropertyGroup):
    """One take (in ``Scene.ex4d_takes``); ``follow`` keeps it up to date.

    ``state`` is "sending", one of the backend's job states, or "stopped" when the add-on could not go on.
    """

    label: bpy.props.StringProperty(name="Label", description="What the take is called")
    shot: bpy.props.StringProperty(description="Key of the shot that it is a take of")
    version: bpy.props.IntProperty(description="Which take of its shot it is, counted from 1", default=1)
    engine: bpy.props.StringProperty(description="What makes it", default="preview")
    seed: bpy.props.IntProperty(description="Of a final; -1 where it is not known", default=-1)
    steps: bpy.props.IntProperty(description="Of a final's denoising")
    guidance: bpy.props.FloatProperty(description="Of a final")
    fps: bpy.props.FloatProperty(description="Frames a second of the footage, and so of the take; 0 if not known")
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
    done: bpy.props.IntProperty(description="Steps or frames that are through the present stage", options={"SKIP_SAVE"})
    total: bpy.props.IntProperty(description="Of so many", options={"SKIP_SAVE"})
    queue_position: bpy.props.IntProperty(description="Jobs before it while it waits", options={"SKIP_SAVE"})
    seconds_left: bpy.props.IntProperty(
        description="Time that the present step is likely to take still; -1 while nobody knows",
        default=-1,
        options={"SKIP_SAVE"},
    )
    reason: bpy.props.StringProperty(description="Why it failed or stopped")
    cancelling: bpy.props.BoolProperty(description="Whether the backend has to be told still that it is cancelled")


CLASSES = (EX4D_Take,)


def find_take(key: str, shown: bpy.types.Scene | None = None) -> tuple[bpy.types.Scene, EX4D_Take] | None:
    """The Blender scene that holds a take, and its entry there; None when the open file has none.

    Args:
        shown: of several such scenes, the one that is meant.
    """
    found = find_copies(key)
    return next((one for one in found if one[0] == shown), found[0] if found else None)


def find_copies(key: str) -> list[tuple[bpy.types.Scene, EX4D_Take]]:
    """As `find_take`, and the same for every copy: whoever duplicates a Blender scene gets its list of takes along."""
    return [(scene, take) for scene in own_scenes() for take in scene.ex4d_takes if take.key == key]


def version_name(label: str, version: int) -> str:
    """What a take is called in lists and in the sequencer, to tell it from its shot's other takes."""
    return f"{label} v{version}"


def active_take(blender_scene: bpy.types.Scene) -> EX4D_Take | None:
    """The take that the list has marked."""
    takes, index = blender_scene.ex4d_takes, blender_scene.ex4d_take_index
    return takes[index] if 0 <= index < len(takes) else None


def takes_of_shot(blender_scene: bpy.types.Scene, shot: str) -> list[EX4D_Take]:
    """The takes of the shot with that key, oldest first."""
    return [take for take in blender_scene.ex4d_takes if shot and take.shot == shot]


def register() -> None:
    bpy.types.Scene.ex4d_takes = bpy.props.CollectionProperty(type=EX4D_Take)
    bpy.types.Scene.ex4d_take_index = bpy.props.IntProperty(name="Take", description="The take to look at")


def unregister() -> None:
    del bpy.types.Scene.ex4d_take_index
    del bpy.types.Scene.ex4d_takes
