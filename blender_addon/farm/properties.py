"""What *Send to Farm* has written last, where the job type of a farm finds it."""

from __future__ import annotations

import bpy

FARM = "ex4d_farm"


class EX4D_Farm(bpy.types.PropertyGroup):
    """In ``Scene.ex4d_farm``; docs/deploy/ex4d_shots.js reads it."""

    file: bpy.props.StringProperty(description="File of shots for the farm", subtype="FILE_PATH")
    shots: bpy.props.StringProperty(description="Names of its shots, with commas between them")


CLASSES = (EX4D_Farm,)
PROPERTIES = ((bpy.types.Scene, FARM, bpy.props.PointerProperty(type=EX4D_Farm)),)
