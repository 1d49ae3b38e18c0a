"""Works a Blender with a window, from inside it: presses buttons, answers dialogs, takes screenshots, waits.

A walk is a generator. Each step yields how many seconds Blender may draw and work before the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np

# How long Blender may take to reach a state, drawn in software on a busy machine.
PATIENCE_SECONDS = 300.0
ADDON = "bl_ext.user_default.ex4d"
FINISHED = ("done", "failed", "stopped", "cancelled")


class Walk:
    """What a walk has seen so far.

    Attributes:
        folder: gets NAME.png for each picture, and the file ``report`` at the end.
        result: facts for the test.
    """

    def __init__(self, folder: Path, report: str) -> None:
        """Start a walk with nothing seen."""
        self.folder, self._report = folder, report
        self.result: dict[str, Any] = {"pictures": []}

    def start(self, steps: Iterator[float]) -> None:
        """Take the steps one after the other, write the report, and quit Blender."""

        def step() -> float | None:
            try:
                return next(steps)
            except StopIteration:
                self.result["outcome"] = "success"
            except BaseException:  # the test must report any failure, and Blender must quit
                self.result["outcome"] = traceback.format_exc()
                self._grab("failure")
            (self.folder / self._report).write_text(json.dumps(self.result))
            bpy.ops.wm.quit_blender()
            return None

        bpy.app.timers.register(step, first_interval=2.0, persistent=True)

    def picture(self, name: str) -> Iterator[float]:
        """Keep a screenshot once two in a row are the same: panels unfold, and previews load, over several frames.

        They are compared as files, since an image that is loaded into Blender has EEVEE draw its samples again.
        """
        compile_shaders()
        before, end = b"", time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            yield 0.7
            self._grab(name)
            now = (self.folder / f"{name}.png").read_bytes()
            if now == before:
                break
            before = now
        self.result["pictures"].append(f"{name}.png")

    def picture_now(self, name: str) -> None:
        """Keep a screenshot of what changes all the time."""
        self._grab(name)
        self.result["pictures"].append(f"{name}.png")

    def magenta(self, name: str) -> float:
        """Share of a screenshot that has the unseen color, in full light or under the camera's passepartout."""
        red, green, blue = self._pixels(name).T
        return float(((red > 0.6) & (blue > 0.6) & (green < 0.2) & (np.abs(red - blue) < 0.1)).mean())

    def green(self, name: str) -> float:
        """Share of a screenshot that is the green of the sample's grass and trees."""
        red, green, blue = self._pixels(name).T
        return float(((green > red + 0.08) & (green > blue + 0.15)).mean())

    def _grab(self, name: str) -> None:
        path = self.folder / f"{name}.png"
        grab = shutil.which("import")  # ImageMagick's; Blender's own comes out black where Mesa draws in software
        if grab and "DISPLAY" in os.environ:
            undated = ["-strip", "-define", "png:exclude-chunks=date,tIME"]
            subprocess.run([grab, "-window", "root", *undated, str(path)], check=True)
        else:
            with bpy.context.temp_override(window=main_window()):
                bpy.ops.screen.screenshot(filepath=str(path))

    def _pixels(self, name: str) -> np.ndarray:
        """(H*W, 3) colours of a screenshot."""
        image = bpy.data.images.load(str(self.folder / f"{name}.png"), check_existing=False)
        pixels = np.empty(image.size[0] * image.size[1] * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
        bpy.data.images.remove(image)
        return pixels.reshape(-1, 4)[:, :3]


def main_window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def areas(kind: str) -> list[bpy.types.Area]:
    """The editors of a kind in the main window, the largest first."""
    found = [one for one in main_window().screen.areas if one.type == kind]
    return sorted(found, key=lambda one: -one.width * one.height)


def viewport() -> bpy.types.SpaceView3D:
    return areas("VIEW_3D")[0].spaces.active


def compile_shaders() -> None:
    """Let EEVEE compile what the largest viewport shows: a viewport render waits for that, drawing does not.

    Until then viewports show stand-ins, two screenshots in a row may be the same, and no job is said to be running.
    """
    scene, where = bpy.context.scene, next(iter(areas("VIEW_3D")), None)
    shading = where.spaces.active.shading.type if where else "SOLID"
    if shading != "MATERIAL" and not (shading == "RENDERED" and "EEVEE" in scene.render.engine):
        return
    before = scene.eevee.taa_render_samples, scene.render.resolution_percentage
    scene.eevee.taa_render_samples, scene.render.resolution_percentage = 1, 10
    with bpy.context.temp_override(window=main_window(), area=where, region=region(where)):
        bpy.ops.render.opengl(view_context=True)
    scene.eevee.taa_render_samples, scene.render.resolution_percentage = before


def region(of: bpy.types.Area, kind: str = "WINDOW") -> bpy.types.Region:
    return next(one for one in of.regions if one.type == kind)


def press(operator: Any, in_area: str = "VIEW_3D", **settings: Any) -> set[str]:
    """Press a button as an artist does, who may get a dialog.

    Returns:
        {"FINISHED"}, or {"RUNNING_MODAL"} or {"INTERFACE"} with a dialog.
    """
    where = areas(in_area)[0]
    with bpy.context.temp_override(window=main_window(), area=where, region=region(where)):
        outcome = operator("INVOKE_DEFAULT", **settings)
    assert outcome in ({"FINISHED"}, {"RUNNING_MODAL"}, {"INTERFACE"}), (operator, outcome)
    return outcome


def scroll_sidebar(pixels: int) -> None:
    """Scroll the sidebar of the largest viewport down."""
    area = areas("VIEW_3D")[0]
    with bpy.context.temp_override(window=main_window(), area=area, region=region(area, "UI")):
        bpy.ops.view2d.pan(deltax=0, deltay=-pixels)


def move_mouse(x: float, y: float) -> None:
    """Move the mouse to a place of the main window, in fractions of its size from its lower left."""
    window = main_window()
    window.event_simulate(type="MOUSEMOVE", value="NOTHING", x=int(x * window.width), y=int(y * window.height))


def key(name: str) -> None:
    """Press and release a key."""
    for value in ("PRESS", "RELEASE"):
        main_window().event_simulate(type=name, value=value)


def until(met: Callable[[], object]) -> Iterator[float]:
    """Wait for a state."""
    waited = 0.0
    while not met():
        assert waited < PATIENCE_SECONDS, [(take.state, take.reason) for take in bpy.context.scene.ex4d_takes]
        waited += 0.2
        yield 0.2


def module(name: str) -> ModuleType:
    """A module of the installed add-on."""
    return sys.modules[f"{ADDON}.{name}"]


def is_connected() -> bool:
    return module("connection.session").session().connected


def tab_is_shown() -> bool:
    area = areas("VIEW_3D")[0]
    try:
        return viewport().show_region_ui and region(area, "UI").active_panel_category == "EX-4D"
    except AttributeError:  # the sidebar has no tabs until it is drawn
        return False
