"""Runs inside a Blender with a window: how much of a camera's frame is marked unseen or remembered.

    blender --enable-event-simulate --python unseen.py -- SCENE FOLDER

As pivots.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import bpy
import mathutils
import numpy as np

sys.path.append(str(Path(__file__).parent))

from blender_window import Walk, areas, main_window, press, region, viewport
from bpy_extras.view3d_utils import location_3d_to_region_2d

EEVEE = "BLENDER_EEVEE" if bpy.app.version >= (5, 0) else "BLENDER_EEVEE_NEXT"
SHADINGS = (f"MATERIAL with {EEVEE}", f"RENDERED with {EEVEE}", "RENDERED with CYCLES")


def in_frame(walk: Walk, name: str) -> np.ndarray:
    """(N, 3) colours of a screenshot within the camera's frame."""
    camera, window = bpy.context.scene.camera, region(areas("VIEW_3D")[0])
    corners = [
        location_3d_to_region_2d(window, viewport().region_3d, camera.matrix_world @ corner)
        + mathutils.Vector((window.x, window.y))
        for corner in camera.data.view_frame(scene=bpy.context.scene)
    ]
    low, high = (np.array([pick(one[axis] for one in corners) for axis in (0, 1)]).astype(int) for pick in (min, max))
    image = walk._pixels(name).reshape(main_window().height, main_window().width, 3)
    return image[low[1] + 2 : high[1] - 2, low[0] + 2 : high[0] - 2].reshape(-1, 3)


def unseen(walk: Walk, package: str) -> Iterator[float]:
    """The end of an orbit in Solid view, by occlusion model and memory; then in the other shadings."""
    scene = bpy.context.scene
    for name in ("Cube", "Light", "Camera"):
        bpy.data.objects.remove(bpy.data.objects[name])
    bpy.ops.ex4d.import_scene(filepath=str(Path(package) / "manifest.json"))
    press(bpy.ops.ex4d.add_camera, preset="orbit")
    viewport().region_3d.view_perspective = "CAMERA"
    viewport().show_gizmo = False
    scene.frame_set(scene.frame_end)
    scene.eevee.taa_samples, scene.cycles.preview_samples = 4, 1
    walk.result["unseen"], walk.result["remembered"] = {}, {}
    solid = (*product(["on"], ["auto", "watertight", "thickness", "open"]), ("off", "thickness"))
    for memory, occlusion, shading in (*((*one, "") for one in solid), *(("on", "auto", one) for one in SHADINGS)):
        scene.ex4d_shot.occlusion, scene.ex4d_shot.memory = occlusion, memory
        if shading:
            viewport().shading.type, engine = shading.split(" with ")
            scene.render.engine = engine
        name = f"{occlusion}, memory {memory}" + (shading and f", {shading}")
        yield from walk.picture(name)
        red, green, blue = in_frame(walk, name).T
        never = (red > 0.9) & (blue > 0.9) & (green < 0.1)
        remembered = (red < 0.1) & (blue > 0.9) & (green > 0.5) & (green < 0.8)
        walk.result["unseen"][name] = float((never | remembered).mean())
        walk.result["remembered"][name] = float(remembered.mean())


given, folder = sys.argv[sys.argv.index("--") + 1 :]
walk = Walk(Path(folder), "report.json")
bpy.context.preferences.view.show_splash = False
walk.start(unseen(walk, given))
