"""Runs inside a Blender with a window: picks pivots with real clicks, and makes moves around them.

    blender --factory-startup --enable-event-simulate --python pivots.py -- SCENE FOLDER

The add-on is installed; SCENE is a scene package. Pictures and report.json go to FOLDER.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import bpy
import mathutils

sys.path.append(str(Path(__file__).parent))

from blender_window import Walk, areas, key, main_window, module, press, region, until, viewport
from bpy_extras.view3d_utils import location_3d_to_region_2d

ASIDE = mathutils.Euler((1.25, 0.0, 0.5)).to_quaternion()


def click(at: mathutils.Vector, button: str = "LEFTMOUSE") -> None:
    """Click into the largest viewport, at pixels of its region."""
    window = region(areas("VIEW_3D")[0])
    place = {"x": int(window.x + at.x), "y": int(window.y + at.y)}
    main_window().event_simulate(type="MOUSEMOVE", value="NOTHING", **place)
    for value in ("PRESS", "RELEASE"):
        main_window().event_simulate(type=button, value=value, **place)


def on_screen(place: mathutils.Vector) -> mathutils.Vector:
    return location_3d_to_region_2d(region(areas("VIEW_3D")[0]), viewport().region_3d, place)


def pivots(walk: Walk, package: str) -> Iterator[float]:
    """Through the camera, from aside, cancelled, beside the scene, and then an orbit."""
    scene = bpy.context.scene
    for name in ("Cube", "Light", "Camera"):
        bpy.data.objects.remove(bpy.data.objects[name])
    bpy.ops.ex4d.import_scene(filepath=str(Path(package) / "manifest.json"))
    mesh = bpy.context.view_layer.objects.active
    kept, place_of = mesh.ex4d_pivot, module("cameras.pivots").place_of
    viewport().show_region_ui = True
    viewport().region_3d.view_perspective = "CAMERA"
    yield 1.0
    region(areas("VIEW_3D")[0], "UI").active_panel_category = "EX-4D"
    yield from walk.picture("1_before")
    assert kept.kind == "MIDDLE"

    frame = [one for one in scene.camera.data.view_frame(scene=scene)]
    corners = [on_screen(scene.camera.matrix_world @ one) for one in frame]
    low = mathutils.Vector((min(one.x for one in corners), min(one.y for one in corners)))
    size = mathutils.Vector((max(one.x for one in corners), max(one.y for one in corners))) - low
    for button in ("ESC", "RIGHTMOUSE"):
        press(bpy.ops.ex4d.pick_pivot)
        yield 0.5
        key("ESC") if button == "ESC" else click(low + 0.5 * size, button)
        yield 0.5
        assert kept.kind == "MIDDLE" and not kept.is_picked, button
    aimed = low + mathutils.Vector((0.35 * size.x, 0.45 * size.y))
    press(bpy.ops.ex4d.pick_pivot)
    yield from walk.picture("2_picking")
    click(low - mathutils.Vector((12.0, 12.0)))  # beside the footage
    yield 0.5
    assert kept.kind == "MIDDLE"
    click(aimed)
    yield from until(lambda: kept.kind == "POINT")
    assert (on_screen(place_of(mesh, bpy.context)) - aimed).length < 2.0
    first = mathutils.Vector(kept.point)
    yield from walk.picture("3_picked_through_the_camera")

    view = viewport().region_3d
    view.view_perspective, view.view_rotation = "PERSP", ASIDE
    press(bpy.ops.view3d.view_selected)
    yield from walk.picture("4_from_aside")
    press(bpy.ops.ex4d.pick_pivot)
    window = region(areas("VIEW_3D")[0])
    aimed = mathutils.Vector((0.42 * window.width, 0.5 * window.height))
    click(aimed)
    yield from until(lambda: mathutils.Vector(kept.point) != first)
    assert (on_screen(place_of(mesh, bpy.context)) - aimed).length < 2.0
    yield from walk.picture("5_picked_from_aside")
    bpy.ops.ed.undo()
    yield 0.5
    mesh = bpy.context.view_layer.objects.active
    assert (mathutils.Vector(mesh.ex4d_pivot.point) - first).length < 1e-6
    place = place_of(mesh, bpy.context)

    press(bpy.ops.ex4d.add_camera, preset="orbit")
    view = viewport().region_3d
    view.view_perspective = "CAMERA"
    seen = []
    for number in (bpy.context.scene.frame_start, bpy.context.scene.frame_end):
        bpy.context.scene.frame_set(number)
        yield from walk.picture(f"6_orbit_{number}")
        seen.append(on_screen(place))
    assert (seen[0] - seen[1]).length < 1.0, seen
    walk.result["seen"] = [tuple(one) for one in seen]


given, folder = sys.argv[sys.argv.index("--") + 1 :]
walk = Walk(Path(folder), "report.json")
bpy.context.preferences.view.show_splash = False
walk.start(pivots(walk, given))
