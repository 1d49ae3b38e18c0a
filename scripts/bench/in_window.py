"""Runs inside a Blender with a window: what the add-on's drawing, ticks and import cost there, in CPU time.

    blender --factory-startup --python-use-system-env --python in_window.py -- SCENE

Started by ``bench.window``. Prints one line of JSON: milliseconds by name.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import bpy  # pyright: ignore[reportMissingImports] - in Blender alone

(SCENE,) = sys.argv[sys.argv.index("--") + 1 :]
REDRAWS, TICKS = 200, 1000
# How long a window may take to be drawn, in software on a busy machine.
PATIENCE_SECONDS = 120.0
figures: dict[str, float] = {}


class Timed:
    """A draw handler, with the CPU time of each call in milliseconds."""

    def __init__(self, draw: Callable[[], None]) -> None:
        """Wrap it."""
        self._draw = draw
        self.times: list[float] = []

    def __call__(self) -> None:
        """Draw."""
        begun = time.thread_time()
        self._draw()
        self.times.append(1000 * (time.thread_time() - begun))


def enable() -> dict[str, Timed]:
    """Enable the add-on; its draw handlers, by name."""
    from blender_addon.coverage import path_drawing
    from blender_addon.scenes import unseen_areas

    drawing: dict[str, Timed] = {}
    places: tuple[tuple[Any, str, str], ...] = (
        (path_drawing, "_draw_lines", "lines of the camera path"),
        (path_drawing, "_draw_text", "text of the camera path"),
        (unseen_areas, "_draw", "unseen areas"),
    )
    for module, function, name in places:
        drawing[name] = Timed(getattr(module, function))
        setattr(module, function, drawing[name])
    bpy.ops.preferences.addon_enable(module="blender_addon")
    # Nobody listens there.
    bpy.context.preferences.addons["blender_addon"].preferences.address = "tcp://127.0.0.1:1"
    return drawing


def shoot() -> None:
    """Import the scene, add a camera, and have all of its frames coloured by a made-up coverage."""
    import numpy as np

    from blender_addon.coverage.live_coverage import ShownCoverage, live_coverage
    from blender_addon.scenes.importing import import_scene
    from blender_addon.scenes.link import link_of

    begun = time.process_time()
    scene_object = import_scene(SCENE)
    figures["import"] = 1000 * (time.process_time() - begun)
    bpy.ops.ex4d.add_camera(preset="orbit")
    scene, link = bpy.context.scene, link_of(scene_object)
    seen = np.linspace(1.0, 0.4, link.frames)
    fresh = np.ones(link.frames, dtype=bool)
    scene.ex4d_coverage.live = True
    none = np.zeros(link.frames)
    live_coverage.of(scene).shown = ShownCoverage(link.frame_start, seen, none, none, fresh)


def steps() -> Iterator[float]:
    """Each step yields how long Blender may draw before the next."""
    drawing = enable()
    yield 1.0
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        shoot()
    viewport = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    viewport.spaces.active.region_3d.view_perspective = "PERSP"
    lines, text = drawing["lines of the camera path"], drawing["text of the camera path"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    # A handler is called in each redraw, and draws nothing before the path was read.
    while max(text.times, default=0.0) < 0.05 and time.monotonic() < deadline:
        viewport.tag_redraw()
        yield 0.1
    for one in drawing.values():
        one.times.clear()
    while len(lines.times) < REDRAWS and time.monotonic() < deadline:
        viewport.tag_redraw()
        yield 0.001
    figures.update({f"redraw, {name}": median(one.times) for name, one in drawing.items()})
    figures["redraw, the camera path"] = median(map(sum, zip(lines.times, text.times, strict=True)))
    measure_ticks()


def measure_ticks() -> None:
    """While nothing is under way."""
    from blender_addon.scheduler import scheduler

    times = []
    for _ in range(TICKS):
        begun = time.thread_time()
        scheduler.tick()
        times.append(1000 * (time.thread_time() - begun))
    figures["idle tick"] = median(times)


def advance(progress: Iterator[float] = steps()) -> float | None:  # noqa: B008 - one run for the whole process
    """The timer: the next step, or the end."""
    try:
        return next(progress)
    except StopIteration:
        print(json.dumps(figures), flush=True)
    except BaseException:
        import traceback

        traceback.print_exc()
    bpy.ops.wm.quit_blender()
    return None


bpy.app.timers.register(advance, first_interval=1.0)
