"""What a .blend keeps of takes."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import BlenderScene
from ..jobs.records import JobRecord

# The Blender scenes' list of takes.
TAKES = "ex4d_takes"


class EX4D_Take(JobRecord, bpy.types.PropertyGroup):
    """One take (in ``Scene.ex4d_takes``)."""

    shot: bpy.props.StringProperty(description="Key of the take's shot")
    version: bpy.props.IntProperty(description="Number of the take in its shot, from 1", default=1)
    engine: bpy.props.StringProperty(description="Engine that generates the take", default="preview")
    seed: bpy.props.IntProperty(description="Random seed of a final; -1 if unknown", default=-1)
    steps: bpy.props.IntProperty(description="Denoising steps of a final")
    guidance: bpy.props.FloatProperty(description="Guidance of a final")
    arithmetic: bpy.props.StringProperty(description="Precision that the backend computed a final in")
    fps: bpy.props.FloatProperty(description="Frame rate of the scene that the take was sent from; 0 if unknown")
    footage_fps: bpy.props.FloatProperty(description="Frame rate of the footage; 0 if unknown")
    frame_start: bpy.props.IntProperty(description="Start frame of the take")
    frames: bpy.props.IntProperty(description="Number of frames in the take")


CLASSES = (EX4D_Take,)
PROPERTIES = (
    (bpy.types.Scene, TAKES, bpy.props.CollectionProperty(type=EX4D_Take)),
    (
        bpy.types.Scene,
        "ex4d_takes_of_shot",
        bpy.props.BoolProperty(name="Only This Shot", description="List only the takes of the active shot"),
    ),
    (bpy.types.Scene, "ex4d_take_index", bpy.props.IntProperty(name="Take", description="Selected take")),
)


def version_name(label: str, version: int) -> str:
    """What a take is called in lists and in the sequencer, to tell it from its shot's other takes."""
    return f"{label} v{version}"


def take_name(entry: EX4D_Take) -> str:
    """What lists call a take: its label, and which version of its shot it is."""
    final = " " + iface_("final") if entry.engine == "wan" else ""
    return version_name(entry.label, entry.version) + final


def newest_take(blender_scene: BlenderScene) -> EX4D_Take | None:
    """The newest take of the active shot, or None."""
    return next(reversed(takes_of_shot(blender_scene, blender_scene.ex4d_shot.key)), None)


def active_take(blender_scene: bpy.types.Scene) -> EX4D_Take | None:
    """The selected take in the list."""
    takes, index = blender_scene.ex4d_takes, blender_scene.ex4d_take_index
    return takes[index] if 0 <= index < len(takes) else None


def takes_of_shot(blender_scene: bpy.types.Scene, shot: str) -> list[EX4D_Take]:
    """The takes of the shot with that key, oldest first."""
    return [take for take in blender_scene.ex4d_takes if shot and take.shot == shot]
