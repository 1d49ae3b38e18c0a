"""Cameras of shots for other programs."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from types import SimpleNamespace

from ex4d.cli.options import add_overwrite_argument, whole_number
from ex4d.cli.report import Report
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError

SUMMARY = "write the camera of a shot for other programs"
_CONVERT = """Write a camera file of ours as .chan, COLMAP's text, or transforms.json, in the scene's world.

A take has its camera in camera.npz, a render in camera_NAME.npz. FBX, Alembic and USD are written by Blender.
"""

_OF_BLENDER = (".fbx", ".abc", ".usd", ".usda", ".usdc", ".usdz")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("camera", type=Path, help="a .npz with extrinsics and intrinsics, such as a take's camera.npz")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="a .chan (Nuke), a .json (transforms.json of nerfstudio), a .npz (ours), or a folder for COLMAP's text",
    )
    parser.add_argument("--first-frame", type=whole_number, default=1, metavar="N", help="number of the first frame")
    parser.add_argument("--fps", type=float, default=0.0, metavar="RATE", help="add the time of each frame to .json")
    add_overwrite_argument(parser, "the file, or a model's files in the folder")


def _convert(options: argparse.Namespace, report: Report) -> int:
    from ex4d.depth.camera_writers import MODEL_FILES_WRITTEN, write_chan, write_colmap, write_transforms
    from ex4d.pipeline.targets import OutputError

    if not 0 <= options.fps < math.inf:
        raise RequestError(f"invalid --fps {options.fps:g}: expected a rate above 0")
    camera, out = CameraPath.load(options.camera), options.out
    writes = {".chan": write_chan, ".json": write_transforms, ".npz": lambda path, camera, first: camera.save(path)}
    suffix = out.suffix.lower()
    files = [out] if suffix in writes else [out / name for name in MODEL_FILES_WRITTEN]
    if suffix not in ("", *writes):
        hint = f"{suffix} is Blender's to write" if suffix in _OF_BLENDER else "a folder's name must have no dot"
        raise RequestError(f"invalid --out {out}: expected .chan, .json, .npz or a folder; {hint}")
    for file in files:
        if file.exists() and (not options.overwrite or file.resolve() == options.camera.resolve()):
            raise OutputError(
                f"{file} exists; choose another name, or give --overwrite for a file that is not the input"
            )
    if suffix == ".json":
        write_transforms(out, camera, options.first_frame, options.fps)
    elif suffix in writes:
        writes[suffix](out, camera, options.first_frame)
    else:
        write_colmap(out, camera, options.first_frame)
    off_centre = abs(camera.intrinsics[:, :2, 2] * 2 / camera.size - 1).max()
    if suffix == ".chan" and (off_centre > 1e-6 or abs(camera.pixel_aspect - 1) > 1e-6):
        report.note(".chan has no place for a principal point beside the middle, nor for pixels that are not square")
    report.add("camera", out)
    report.add("frames", len(camera), f"{len(camera)}, of {camera.width}x{camera.height}")
    return 0


ACTIONS = {
    "convert": SimpleNamespace(
        __doc__=_CONVERT,
        SUMMARY="write a camera as .chan, COLMAP's text or transforms.json",
        add_arguments=_add_convert,
        run=_convert,
    )
}
