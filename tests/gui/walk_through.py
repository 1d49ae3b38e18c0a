"""Runs inside a Blender with a window: from footage to two takes in the sequencer, with a screenshot of each step.

    blender --factory-startup --python walk_through.py -- ADD-ON ADDRESS MOVIE DEPTH FOLDER

Every button is pressed by its operator, as the panels do. FOLDER gets NAME.png for each step, and result.json with the
outcome.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import addon_utils
import bpy
import numpy as np

addon, address, movie, depth, folder = sys.argv[sys.argv.index("--") + 1 :]
FOLDER = Path(folder)
# How long Blender may take to reach a state, drawn in software on a busy machine.
PATIENCE_SECONDS = 300.0
FINISHED = ("done", "failed", "stopped")
result: dict = {"screenshots": []}


def area(kind: str) -> bpy.types.Area:
    return next(one for one in bpy.context.window_manager.windows[0].screen.areas if one.type == kind)


def region(of: bpy.types.Area, kind: str) -> bpy.types.Region:
    return next(one for one in of.regions if one.type == kind)


def press(operator, in_area: str = "VIEW_3D", **settings) -> None:
    where = area(in_area)
    with bpy.context.temp_override(
        window=bpy.context.window_manager.windows[0], area=where, region=region(where, "WINDOW")
    ):
        assert operator("EXEC_DEFAULT", **settings) == {"FINISHED"}, operator


def take_screenshot(name: str, keep: bool = True) -> None:
    path = FOLDER / f"{name}.png"
    grab = shutil.which("import")  # ImageMagick's; Blender's own comes out black where Mesa draws in software
    if grab and "DISPLAY" in os.environ:
        subprocess.run([grab, "-window", "root", str(path)], check=True)
    else:
        with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
            bpy.ops.screen.screenshot(filepath=str(path))
    if keep:
        result["screenshots"].append(path.name)


def pixels_of(name: str) -> np.ndarray:
    """(H*W, 3) colours of a screenshot."""
    image = bpy.data.images.load(str(FOLDER / f"{name}.png"), check_existing=False)
    pixels = np.empty(image.size[0] * image.size[1] * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(-1, 4)[:, :3]


def unseen_fraction(name: str) -> float:
    """Share of a screenshot that is magenta, the unseen colour, in full light or under the camera's passepartout."""
    red, green, blue = pixels_of(name).T
    return float(((red > 0.6) & (blue > 0.6) & (green < 0.2) & (np.abs(red - blue) < 0.1)).mean())


def set_up_window() -> None:
    """A viewport with a sidebar, and the sequencer instead of the Properties editor."""
    viewport = area("VIEW_3D")
    space = viewport.spaces.active
    space.show_region_ui, space.show_region_toolbar = True, False
    space.shading.type = "SOLID"
    if any(one.type == "PROPERTIES" for one in bpy.context.window_manager.windows[0].screen.areas):
        sequencer = area("PROPERTIES")
        sequencer.type = "SEQUENCE_EDITOR"
        sequencer.spaces.active.view_type = "SEQUENCER_PREVIEW"


def tab_is_shown() -> bool:
    sidebar = region(area("VIEW_3D"), "UI")
    try:
        sidebar.active_panel_category = "EX-4D"
    except (AttributeError, TypeError):  # the sidebar has no tabs until it is drawn
        return False
    return sidebar.active_panel_category == "EX-4D"


def look_through_camera() -> None:
    area("VIEW_3D").spaces.active.region_3d.view_perspective = "CAMERA"


def steps() -> Iterator[float]:
    """Each step yields how long Blender may draw before the next."""
    scene = bpy.context.scene
    set_up_window()
    yield from wait(tab_is_shown)
    yield from wait(is_connected)
    yield from drawn("1_connected")
    press(bpy.ops.ex4d.pick_footage, filepath=movie)
    press(bpy.ops.ex4d.pick_depth, filepath=depth)
    press(bpy.ops.ex4d.reconstruct)
    yield 1.2
    take_screenshot("2_footage")
    yield from wait(lambda: scene.ex4d_reconstructions[0].state in ("imported", "failed", "stopped"))
    look_through_camera()
    result["reconstruction"] = [scene.ex4d_reconstructions[0].state, scene.ex4d_reconstructions[0].reason]
    result["unseen"] = {}
    yield from drawn("3_scene")
    result["unseen"]["source"] = unseen_fraction("3_scene")
    press(bpy.ops.ex4d.add_camera, preset="orbit", other_way=True)
    scene.frame_set((scene.frame_start + scene.frame_end) // 2)
    scene.ex4d_coverage.live = True
    yield from wait(coverage_is_shown)
    yield from drawn("4_camera")
    result["unseen"]["SOLID"] = unseen_fraction("4_camera")
    yield from shaded_alike()
    press(bpy.ops.ex4d.add_camera, preset="crane")
    scene.ex4d_shot_index = 0
    press(bpy.ops.ex4d.send_take)
    yield from wait(lambda: scene.ex4d_takes[0].progress > 0.2 or scene.ex4d_takes[0].state in FINISHED)
    bring_takes_into_view()
    yield 0.5
    take_screenshot("6_running")
    press(bpy.ops.ex4d.send_take)
    yield from wait(lambda: all(take.state in FINISHED for take in scene.ex4d_takes))
    result["takes"] = [[take.label, take.version, take.state, take.reason] for take in scene.ex4d_takes]
    press(bpy.ops.ex4d.show_take, key=scene.ex4d_takes[1].key)
    sys.modules[f"{addon}.takes.results"].show_result(bpy.context, scene.ex4d_takes[1])
    bring_takes_into_view()
    yield from drawn("7_takes")


def is_connected() -> bool:
    return sys.modules[f"{addon}.connection.session"].session().connected


def coverage_is_shown() -> bool:
    shown = sys.modules[f"{addon}.coverage.live_coverage"].live_coverage.of(bpy.context.scene).shown
    return shown is not None and bool(shown.fresh.all())


def shaded_alike() -> Iterator[float]:
    """Material Preview and Rendered view show the unseen too, once their shaders are compiled."""
    shading, frame = area("VIEW_3D").spaces.active.shading, bpy.context.scene.frame_current
    for kind in ("MATERIAL", "RENDERED"):
        shading.type = kind
        waited = 0.0
        while waited < PATIENCE_SECONDS:
            bpy.context.scene.frame_set(frame)
            yield 2.0
            waited += 2.0
            take_screenshot("5_" + kind.lower(), keep=False)
            result["unseen"][kind] = unseen_fraction("5_" + kind.lower())
            if abs(result["unseen"][kind] - result["unseen"]["SOLID"]) < 0.1 * result["unseen"]["SOLID"]:
                break
    shading.type = "SOLID"


def drawn(name: str) -> Iterator[float]:
    """Take a screenshot once two in a row are the same: panels unfold, and previews are loaded, over several frames."""
    before, waited = np.empty(0), 0.0
    while waited < PATIENCE_SECONDS:
        yield 0.5
        waited += 0.5
        take_screenshot(name, keep=False)
        now = pixels_of(name)
        if np.array_equal(before, now):
            break
        before = now
    result["screenshots"].append(f"{name}.png")


def bring_takes_into_view() -> None:
    viewport = area("VIEW_3D")
    with bpy.context.temp_override(
        window=bpy.context.window_manager.windows[0], area=viewport, region=region(viewport, "UI")
    ):
        bpy.ops.view2d.pan(deltax=0, deltay=-600)


def wait(met) -> Iterator[float]:
    waited = 0.0
    while not met():
        assert waited < PATIENCE_SECONDS, [(take.state, take.reason) for take in bpy.context.scene.ex4d_takes]
        waited += 0.2
        yield 0.2


def run() -> float | None:
    try:
        return next(walk)
    except StopIteration:
        result["outcome"] = "success"
    except BaseException:  # the test must report any failure, and Blender must quit
        result["outcome"] = traceback.format_exc()
    (FOLDER / "result.json").write_text(json.dumps(result))
    bpy.ops.wm.quit_blender()
    return None


walk = steps()
bpy.context.preferences.view.show_splash = False
addon_utils.enable(addon, default_set=True)
bpy.context.preferences.addons[addon].preferences.address = address
for thing in list(bpy.data.objects):
    bpy.data.objects.remove(thing)
bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "walk_through.blend"))
bpy.app.timers.register(run, first_interval=2.0)
