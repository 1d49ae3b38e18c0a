"""Bring the footage's lens distortion back into a movie of a take, or write the map that does so in a compositor.

Scenes of footage whose lens distortion was undone record it. Movies must have the footage's shape. At the border the
lens shows more than the take does; there the take's edge is repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.cli.options import add_overwrite_argument, size
from ex4d.cli.report import Report
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene

SUMMARY = "bring the footage's lens distortion back into a take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", type=Path, help="the scene that the take was made from")
    parser.add_argument("movie", type=Path, nargs="?", help="colour, mask or another movie of a take")
    parser.add_argument("-o", "--out", type=Path, required=True, help="an .mp4, or with --st-map an .exr")
    add_overwrite_argument(parser, "the file")
    parser.add_argument("--nearest", action="store_true", help="take the nearest pixel, as masks need it, not a mean")
    parser.add_argument(
        "--st-map", action="store_true", help="write the map as an EXR, as Nuke's STMap takes it, in place of a movie"
    )
    parser.add_argument("--size", type=size, metavar="WxH", help="of the map; default: the footage's")


def run(options: argparse.Namespace, report: Report) -> int:
    from ex4d.pipeline.distort import DISTORT_STAGE, distort_movie, lens_of_scene, write_st_map
    from ex4d.pipeline.targets import require_file

    scene = Scene.open(options.scene)
    if (options.movie is None) != options.st_map:
        raise RequestError("give either a movie to distort, or --st-map")
    if options.movie is not None and options.size:
        raise RequestError("--size is for --st-map; a movie keeps its size")
    suffix = ".exr" if options.st_map else ".mp4"
    if options.out.suffix.lower() != suffix:
        raise RequestError(f"invalid --out {options.out}: expected a file that ends in {suffix}")
    inputs = [*scene.paths(), *filter(None, [options.movie])]
    lens = lens_of_scene(scene)
    require_file(options.out, inputs=inputs, overwrite=options.overwrite)
    if options.movie is None:
        beyond = write_st_map(scene, options.out, *(options.size or (scene.manifest.width, scene.manifest.height)))
        report.add("map", options.out)
    else:
        with report.stages() as progress:
            how = {"nearest": options.nearest, "progress": lambda done, total: progress(DISTORT_STAGE, done, total)}
            beyond = distort_movie(scene, options.movie, options.out, **how)
        report.add("movie", options.out)
    report.add("lens_distortion", lens.to_wire(), str(lens))
    report.add("beyond", beyond, f"{beyond:.1%} of the picture is beyond the take, and repeats its edge")
    return 0
