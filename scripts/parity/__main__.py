"""Compare results with the original EX-4D's: print every comparison, and fail if one is out of bounds.

  ex4d parity generation PREFIX   PREFIX.npz, PREFIX_dit.safetensors and PREFIX_adapter.ckpt
  ex4d parity windows PREFIX      the same files: a lead-in and three windows, by DiffSynth's pass
  ex4d parity geometry FILE.npz   DW-Mesh, camera moves and mask renders
  ex4d parity depth FOLDER        DepthCrafter: unet/, svd/ and expected.npz in the folder

Needs a source checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ex4d.cli.main import run_program
from ex4d.cli.report import Report
from ex4d_core.render_settings import RASTERIZERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("what", choices=("generation", "windows", "geometry", "depth"))
    parser.add_argument("case", type=Path, help="file, prefix or folder of the case")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rasterizer", choices=RASTERIZERS, default="auto", help="with geometry")


def run(options: argparse.Namespace, report: Report) -> int:
    """Print every row or comparison as soon as it is there; returns the exit code."""
    if options.what == "generation":
        from parity.generation import compare_generation

        comparisons = compare_generation(options.case, options.device)
    elif options.what == "windows":
        from parity.windows import compare_windows

        comparisons = compare_windows(options.case, options.device)
    elif options.what == "depth":
        from parity.depth import compare_depth

        comparisons = compare_depth(options.case, options.device)
    else:
        from parity.geometry import compare_geometry

        comparisons = compare_geometry(options.case, options.rasterizer, options.device)
    rows = []
    for comparison in comparisons:
        relation = ">=" if comparison.at_least else "<="
        verdict = "ok " if comparison.right else "OFF"
        figure = f"{comparison.value:.5g} {relation} {comparison.bound:g}"
        report.say(f"{verdict}  {comparison.name:38} {comparison.measure:12} {figure}")
        rows.append({**asdict(comparison), "right": comparison.right})
    off = sum(not row["right"] for row in rows)
    report.add("comparisons", rows, f"{len(rows)}, {off} off" if off else f"{len(rows)}, all within their bounds")
    return 1 if off else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ex4d parity`; returns the exit code."""
    return run_program("parity", sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
