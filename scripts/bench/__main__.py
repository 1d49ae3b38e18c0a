"""Measure this machine.

  ex4d bench           time for each step of the chain, memory, and how both grow with the length of the clip;
                       with --blender also the add-on with ten takes: import, playback, memory, ticks of its timer
  ex4d bench render    colour and masks at several sizes, beside the original EX-4D's loop where a GPU and nvdiffrast
                       are there; views and coverage over a socket, as Blender requests them
  ex4d bench depth     the depth estimators, at full size with random weights
  ex4d bench generate  the engine wan with random weights, beside DiffSynth's code and the original EX-4D
  ex4d bench train     simulated masks, steps of training at full size, and whether a toy learns geometry
  ex4d bench jobs      submit, first frame and end of a small job over a socket, and uploads
  ex4d bench window    with --blender: the add-on in a Blender that shows a window: drawing, ticks, import
  ex4d bench batch     twenty small shots by ex4d batch, beside a command for each step

Needs a source checkout.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bench import FURTHER_PARTS, PARTS, TOYS, TRAINING_PARTS
from ex4d.cli.main import run_program
from ex4d.cli.options import positive_number, progress_bar, size
from ex4d.cli.report import Report
from ex4d_core.errors import RequestError

if TYPE_CHECKING:
    from bench.measuring import Row

# Enough ticks for a 99.9th percentile.
_TAKES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=("chain", "render", "depth", "generate", "train", "jobs", "batch", "window"),
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
        "--part",
        action="append",
        choices=(*PARTS, *FURTHER_PARTS, *TRAINING_PARTS),
        help=f"with generate: only this; repeatable (all but {', '.join(FURTHER_PARTS)}: 8 minutes); with train: "
        f"{', '.join(TRAINING_PARTS)}",
    )
    parser.add_argument(
        "--learning", action="append_const", dest="part", const="learning", help="with train: --part learning"
    )
    parser.add_argument("--toy", choices=TOYS, help="with train: size of the toy that learns; default: by the device")
    parser.add_argument(
        "--seeds", type=positive_number, default=3, metavar="N", help="with train: adapters of each kind of masks"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        metavar="M",
        help="with train: stop learning after this time; the same --scratch continues",
    )
    parser.add_argument(
        "--gigabytes",
        type=float,
        default=0.0,
        metavar="GB",
        help="with generate --part cold, without a GPU: of the transformer's files; default: the toy's",
    )
    parser.add_argument(
        "--scratch",
        help="with generate: a folder with 60 GB free; default: for temporary files; with train: keeps what is learned",
    )
    parser.add_argument("--blender", help="a Blender executable, or a Python that has the bpy module")


def run(options: argparse.Namespace, report: Report) -> int:
    """Report every row as soon as it is there; returns the exit code."""
    runs = {"chain": _run_chain, "render": _run_render, "depth": _run_depth, "generate": _run_generate}
    runs |= {"train": _run_train, "jobs": _run_jobs, "batch": _run_batch, "window": _run_window}
    return runs[options.what](options, report)


def _run_window(options: argparse.Namespace, report: Report) -> int:
    from bench.measuring import machine
    from bench.window import measure_window
    from ex4d.addon.blenders import find_executable

    program = options.blender or str(getattr(find_executable(), "program", "blender"))
    with progress_bar() as progress:
        return _report_rows(measure_window(program, progress), machine(), report)


def _run_jobs(options: argparse.Namespace, report: Report) -> int:
    from bench.jobs import measure_jobs
    from bench.measuring import machine

    return _report_rows(measure_jobs(), machine(), report)


def _run_batch(options: argparse.Namespace, report: Report) -> int:
    from bench.many_shots import measure_batch
    from bench.measuring import machine

    return _report_rows(measure_batch(), machine(), report)


def _run_render(options: argparse.Namespace, report: Report) -> int:
    from bench.measuring import machine
    from bench.rendering import measure_rendering

    if not options.markdown:
        return _report_rows(measure_rendering(), machine(), report)
    report.say(f"{machine()}:\n\n| what | measured | |\n|---|---|---|")
    for row in measure_rendering():
        report.say(f"| {row.what} | {row.figure} | {row.remark} |")
    return 0


def _run_generate(options: argparse.Namespace, report: Report) -> int:
    from bench.measuring import machine
    from ex4d.generation.wan.networks import require_diffsynth

    require_diffsynth()
    from importlib.metadata import version
    from pathlib import Path

    from bench.generation import measure_generation

    scratch = Path(options.scratch) if options.scratch else None
    rows = measure_generation(scratch, options.part or PARTS, options.gigabytes)
    return _report_rows(rows, f"{machine()}, diffsynth {version('diffsynth')}", report)


def _run_train(options: argparse.Namespace, report: Report) -> int:
    from importlib.metadata import version
    from pathlib import Path

    from bench.measuring import machine
    from ex4d.generation.wan.networks import require_diffsynth
    from ex4d.training.adapter import require_peft

    if wrong := set(options.part or ()) - set(TRAINING_PARTS):
        raise RequestError(f"unknown part {min(wrong)!r} of train: expected one of {', '.join(TRAINING_PARTS)}")
    require_diffsynth()
    require_peft()
    from bench.training import measure_training

    rows = measure_training(
        options.part or TRAINING_PARTS,
        scratch=Path(options.scratch) if options.scratch else None,
        toy=options.toy,
        seeds=options.seeds,
        minutes=options.minutes,
    )
    return _report_rows(rows, f"{machine()}, peft {version('peft')}, accelerate {version('accelerate')}", report)


def _run_depth(options: argparse.Namespace, report: Report) -> int:
    from bench.estimators import PUBLISHED, measure_estimators
    from bench.measuring import Row, machine
    from ex4d.depth.depth_models import depth_model
    from ex4d.devices import torch_device

    for name in options.estimator:
        depth_model(name)
    device = torch_device(options.device)

    def rows() -> Iterator[Row]:
        for found in measure_estimators(options.estimator, options.frames, *options.size, device):
            memory = "" if found.gigabytes is None else f", {found.gigabytes:.1f} GB of GPU memory"
            stated = PUBLISHED.get(found.model.name)
            remark = f"a frame, at {found.size[0]}x{found.size[1]}{memory}" + (
                f"; published: {stated}" if stated else ""
            )
            yield Row(found.model.name, f"{1000 * found.seconds:.1f} ms", remark)

    what = f"{options.size[0]}x{options.size[1]}, {options.frames} frames, random weights; {machine()}"
    return _report_rows(rows(), what, report)


def _run_chain(options: argparse.Namespace, report: Report) -> int:
    import tempfile
    from pathlib import Path

    from bench.chain import measure
    from bench.measuring import Row, machine
    from ex4d.demo import run_demo

    width, height = options.size

    def rows() -> Iterator[Row]:
        yield from measure(options.frames, width, height)
        if options.blender:
            with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder, progress_bar() as progress:
                _, measured = run_demo(Path(folder), options.blender, progress, takes=_TAKES)
            for what, figure in measured.items():
                what, _, unit = what.rpartition(" ")
                yield Row(f"Blender: {what}", f"{figure:.3g} {unit}", "sample clip, 512x512, 49 frames")

    return _report_rows(rows(), f"{width}x{height}, {options.frames} frames; {machine()}", report)


def _report_rows(rows: Iterable[Row], machine: str, report: Report) -> int:
    """Say each row at once: the whole takes minutes."""
    report.add("machine", machine, machine)
    measured = []
    for row in rows:
        report.say(f"{row.what:38} {row.figure:>14}  {row.remark}")
        measured.append({"what": row.what, "figure": row.figure, "remark": row.remark})
    report.add("rows", measured, "")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ex4d bench`; returns the exit code."""
    return run_program("bench", sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
