"""What a .blend keeps of takes."""

from __future__ import annotations

import bpy

from ..jobs.records import JobRecord

# The Blender scenes' list of takes.
TAKES = "ex4d_takes"


class EX4D_Take(JobRecord, bpy.types.PropertyGroup):
    """One take (in ``Scene.ex4d_takes``)."""

    shot: bpy.props.StringProperty(description="Key of the shot that it is a take of")
    version: bpy.props.IntProperty(description="Which take of its shot it is, counted from 1", default=1)
    engine: bpy.props.StringProperty(description="The engine that generates it", default="preview")
    seed: bpy.props.IntProperty(description="Random seed of a final; -1 if unknown", default=-1)
    steps: bpy.props.IntProperty(description="Denoising steps of a final")
    guidance: bpy.props.FloatProperty(description="Guidance of a final")
    fps: bpy.props.FloatProperty(description="Frame rate of the footage, and so of the take; 0 if unknown")
    frame_start: bpy.props.IntProperty(description="The frame at which the take starts")
    frames: bpy.props.IntProperty(description="Frames of the take")


CLASSES = (EX4D_Take,)
PROPERTIES = (
    (bpy.types.Scene, TAKES, bpy.props.CollectionProperty(type=EX4D_Take)),
    (bpy.types.Scene, "ex4d_take_index", bpy.props.IntProperty(name="Take", description="The take that is marked")),
)


def version_name(label: str, version: int) -> str:
    """What a take is called in lists and in the sequencer, to tell it from its shot's other takes."""
    return f"{label} v{version}"


def active_take(blender_scene: bpy.types.Scene) -> EX4D_Take | None:
    """The take that is marked in the list."""
    takes, index = blender_scene.ex4d_takes, blender_scene.ex4d_take_index
    return takes[index] if 0 <= index < len(takes) else None


def takes_of_shot(blender_scene: bpy.types.Scene, shot: str) -> list[EX4D_Take]:
    """The takes of the shot with that key, oldest first."""
    return [take for take in blender_scene.ex4d_takes if shot and take.shot == shot]
