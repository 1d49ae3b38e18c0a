"""What a .blend keeps of passes."""

from __future__ import annotations

import bpy

from ..blender_types import BlenderScene
from ..jobs.records import JobRecord
from ..takes.properties import version_name

# The Blender scenes' list of passes.
PASSES = "ex4d_passes"


class EX4D_Passes(JobRecord, bpy.types.PropertyGroup):
    """The passes of a shot (in ``Scene.ex4d_passes``)."""

    shot: bpy.props.StringProperty(description="Key of the shot of these passes")
    version: bpy.props.IntProperty(description="Number of these passes in their shot, from 1", default=1)
    frame_start: bpy.props.IntProperty(description="Start frame of the passes")


CLASSES = (EX4D_Passes,)
PROPERTIES = ((bpy.types.Scene, PASSES, bpy.props.CollectionProperty(type=EX4D_Passes)),)


def passes_name(record: EX4D_Passes) -> str:
    """What lists call passes."""
    return version_name(record.label, record.version)


def passes_of_shot(blender_scene: BlenderScene, shot: str) -> list[EX4D_Passes]:
    """The passes of the shot with that key, oldest first."""
    return [one for one in blender_scene.ex4d_passes if one.shot == shot]
