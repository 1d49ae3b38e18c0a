"""Measure this machine.

  ex4d bench           time for each step of the chain, memory, and how both grow with the length of the clip;
                       with --blender also the add-on with ten takes: import, playback, memory, ticks of its timer
  ex4d bench render    colour and masks at several sizes, beside the original EX-4D's loop where a GPU and nvdiffrast
                       are there; views and coverage over a socket, as Blender requests them
  ex4d bench depth     the depth estimators, at full size with random weights
  ex4d bench generate  the engine wan with random weights, beside DiffSynth's code and the original EX-4D

Needs a source checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import PARTS
from ex4d.cli.main import run_program
from ex4d.cli.options import plain_console, positive_number, progress_bar, size

# Enough ticks for a 99.9th percentile.
_TAKES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=("chain", "render", "depth", "generate"),
        default="chain",
        help="what to measure",
    )
    parser.add_argument(
        "--frames", type=positive_number, default=49, help="frames of the clip; the chain also with 4 times that"
    )
    parser.add_argument("--size", type=size, default=(512, 512), metavar="WxH", help="size of the clip")
    parser.add_argument("--markdown", action="store_true", help="with render: print tables like docs/measured/speed.md")
    parser.add_argument("--estimator", action="append", default=[], help="with depth: only this one; repeatable")
    parser.add_argument("--device", default="auto", help="with depth: auto, cpu or cuda")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="with generate: only this; repeatable (all: 8 minutes)"
    )
    parser.add_argument("--scratch", help="with generate: a folder with 60 GB free; default: for temporary files")
    parser.add_argument("--blender", help="a Blender executable, or a Python that has the bpy module")


def run(options: argparse.Namespace) -> int:
    """Print every row or comparison as soon as it is measured; returns the exit code."""
    return {"chain": _run_chain, "render": _run_render, "depth": _run_depth, "generate": _run_generate}[options.what](
        options
    )


def _run_render(options: argparse.Namespace) -> int:
    from rich.table import Table

    from bench.measuring import machine
    from bench.rendering import measure_rendering

    rows = measure_rendering()
    if options.markdown:
        print(f"{machine()}:\n\n| what | measured | |\n|---|---|---|", flush=True)
        for row in rows:
            print(f"| {row.what} | {row.figure} | {row.remark} |", flush=True)
        return 0
    table = Table("what", "measured", "", box=None)
    for row in rows:
        table.add_row(row.what, row.figure, row.remark)
    plain_console().print(machine(), table, sep="\n")
    return 0


def _run_generate(options: argparse.Namespace) -> int:
    """Prints each row at once: the whole takes minutes."""
    from bench.measuring import machine
    from ex4d.generation.wan.networks import require_diffsynth

    require_diffsynth()
    from importlib.metadata import version
    from pathlib import Path

    from bench.generation import measure_generation

    console = plain_console()
    console.print(f"{machine()}, diffsynth {version('diffsynth')}", soft_wrap=True)
    scratch = Path(options.scratch) if options.scratch else None
    for row in measure_generation(scratch, options.part or PARTS):
        console.print(f"{row.what:34} {row.figure:>12}  {row.remark}", soft_wrap=True)
    return 0


def _run_depth(options: argparse.Namespace) -> int:
    from rich.table import Table

    from bench.estimators import PUBLISHED, measure_estimators
    from bench.measuring import machine
    from ex4d.depth.depth_models import depth_model
    from ex4d.devices import torch_device

    for name in options.estimator:
        depth_model(name)
    console, device = plain_console(), torch_device(options.device)
    console.print(f"{options.size[0]}x{options.size[1]}, {options.frames} frames, random weights; {machine()}")
    table = Table("estimator", "works at", "ms/frame", "frames/s", "GPU memory", "published", box=None)
    for found in measure_estimators(options.estimator, options.frames, *options.size, device):
        memory = "" if found.gigabytes is None else f"{found.gigabytes:.1f} GB"
        size = f"{found.size[0]}x{found.size[1]}"
        rate = f"{1 / found.seconds:.1f}"
        stated = PUBLISHED.get(found.model.name, "")
        table.add_row(found.model.name, size, f"{1000 * found.seconds:.1f}", rate, memory, stated)
    console.print(table)
    return 0


def _run_chain(options: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from rich.table import Table

    from bench.chain import measure
    from bench.measuring import machine
    from ex4d.demo import run_demo

    console = plain_console()
    table = Table("what", "measured", "", box=None)
    width, height = options.size
    for row in measure(options.frames, width, height):
        table.add_row(row.what, row.figure, row.remark)
    if options.blender:
        with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder, progress_bar() as progress:
            _, measured = run_demo(Path(folder), options.blender, progress, takes=_TAKES)
        for what, figure in measured.items():
            what, _, unit = what.rpartition(" ")
            table.add_row(f"Blender: {what}", f"{figure:.1f} {unit}", "sample clip, 512x512, 49 frames")
    console.print(f"{width}x{height}, {options.frames} frames; {machine()}")
    console.print(table)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ex4d bench`; returns the exit code."""
    return run_program("bench", sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
