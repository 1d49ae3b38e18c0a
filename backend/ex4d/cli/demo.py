"""Run the whole chain on the sample clip: scene, backend, Blender, camera, take, movie strip."""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.cli.options import progress_bar
from ex4d.cli.report import Report

SUMMARY = "run the whole chain on the sample clip, in a few seconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d demo`."""
    parser.add_argument("-o", "--out", type=Path, default=Path("outputs/demo"), help="folder for the results")
    parser.add_argument(
        "--blender",
        help="a Blender executable (4.2 or later), or a Python that has bpy (default: the first found: this Python, "
        "`blender` on PATH, the usual folders)",
    )


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d demo`."""
    import shutil
    import sys
    import time

    from ex4d.addon.blenders import HOW_TO_GET_BLENDER, find_blender
    from ex4d.demo import DemoError, run_demo

    if options.blender:
        blender = shutil.which(options.blender)
        if blender is None:
            raise DemoError(f"no Blender found at {options.blender!r}; set --blender")
    else:
        found = find_blender()
        if found is None:
            raise DemoError(f"no Blender found: {HOW_TO_GET_BLENDER}")
        blender = str(found.program)
        print(f"Blender: {blender}")
    start = time.monotonic()
    with progress_bar() as progress:
        files, _ = run_demo(options.out, blender, progress)
    report.say(f"\nDone in {time.monotonic() - start:.0f} s. Look at:")
    for name, what, path in (
        ("contact_sheet", "source, render, mask, result", files.contact_sheet),
        ("take", "the take", files.take),
        ("blend", "Blender: mesh, camera, strip", files.blend),
        ("scene", "the scene", files.scene),
    ):
        report.say(f"  {what:30}{_from_here(path)}")
        report.add(name, path, "")
    # After scripts/demo.py the command is in an environment of its own, and not on PATH.
    ex4d = "ex4d" if shutil.which("ex4d") else _from_here(Path(sys.argv[0]))
    scene = _from_here(files.scene)
    report.say("\nTry next:")
    report.say(f"  {ex4d} generate {scene} --preset 180 --out outputs/180")
    report.say(f"  {ex4d} generate {scene} --preset dolly_zoom --holes mark --out outputs/dolly_zoom")
    report.say(f"  {ex4d} reconstruct YOUR_VIDEO --depth ITS_DEPTH --out outputs/yours")
    report.say(f"  {ex4d} addon, then drag its zip into Blender, and {ex4d} serve")
    return 0


def _from_here(path: Path) -> str:
    """A path to type: relative if it is below the current folder."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
