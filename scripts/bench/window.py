"""Measures the add-on in a Blender that shows a window: drawing, ticks and import; see ``in_window.py`` beside this."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress

from bench.measuring import Row
from ex4d.addon.blenders import Blender
from ex4d.demo.blender_packages import BlenderError, blender_modules, last_line_of
from ex4d.demo.chain import sample_scene

_SCRIPT = Path(__file__).with_name("in_window.py")
_LIMIT_SECONDS = 600


def measure_window(program: str, progress: Progress) -> Iterator[Row]:
    """CPU milliseconds inside a Blender's window, with the sample clip.

    Args:
        program: a Blender executable that can show a window.
        progress: shows how far the sample's scene is.

    Raises:
        BlenderError: it does not start, or shows no window.
    """
    blender = Blender.at(program)
    if blender.is_python:
        raise BlenderError(f"{program} is a Python, which shows no window; name a Blender executable with --blender")
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder, blender_modules(blender) as modules:
        scene = Path(folder) / "scene"
        sample_scene(scene, progress)
        flags = ["--factory-startup", "--python-use-system-env", "--python", str(_SCRIPT), "--", str(scene)]
        environment = {**os.environ, "PYTHONPATH": str(modules)}
        done = subprocess.run(
            [program, *flags], env=environment, capture_output=True, text=True, errors="replace", timeout=_LIMIT_SECONDS
        )
        line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
        if line is None:
            raise BlenderError(f"{program} measured nothing: {last_line_of(done.stdout + done.stderr)}")
        for what, figure in json.loads(line).items():
            yield Row(f"window: {what}", f"{figure:.3g} ms", "CPU time; sample clip, 512x512, 49 frames")
