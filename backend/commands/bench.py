"""Measure this machine: time for each step of the chain, memory, and how both grow with the length of the clip.

With --blender also the add-on in Blender: import, playback, and the longest tick of its timer during a take.
`ex4d bench render` measures colour and masks alone, at several sizes, beside the original EX-4D's own loop where a GPU
and nvdiffrast are there.
"""

from __future__ import annotations

import argparse

from backend.commands.options import progress_bar, size

SUMMARY = "measure this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=("chain", "render"),
        default="chain",
        help="the whole chain, or colour and masks alone beside the original EX-4D's own loop",
    )
    parser.add_argument("--frames", type=int, default=49, help="length of the clip; also measured at 4 times that")
    parser.add_argument("--size", type=size, default=(512, 512), metavar="WxH", help="of the clip")
    parser.add_argument("--blender", help="a Blender executable, or a Python that has the bpy module")


def run(options: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from backend.bench import measure
    from backend.demo import run_demo
    from backend.measuring import machine

    console = Console()
    table = Table("what", "measured", "", box=None)
    if options.what == "render":
        from backend.bench_render import measure_rendering

        for row in measure_rendering():
            table.add_row(row.what, row.figure, row.remark)
        console.print(machine())
        console.print(table)
        return 0
    width, height = options.size
    for row in measure(options.frames, width, height):
        table.add_row(row.what, row.figure, row.remark)
    if options.blender:
        with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder, progress_bar() as progress:
            _, measured = run_demo(Path(folder), options.blender, progress)
        for what, figure in measured.items():
            what, _, unit = what.rpartition(" ")
            table.add_row(f"Blender: {what}", f"{figure:.1f} {unit}", "sample clip, 512x512, 49 frames")
    console.print(f"{width}x{height}, {options.frames} frames; {machine()}")
    console.print(table)
    return 0
