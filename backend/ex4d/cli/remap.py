"""Make a scene again with another depth offset, far limit or motion mask; the old scene stays as it is.

Nothing is estimated again. Relative depth is known up to a factor and an offset. --depth-offset sets the offset;
--camera-fit takes factor and offset from a source camera that moves; --square-corner takes the offset from a right
angle in the picture, best of something that lies on the ground: X,Y of the corner, then of a point along each of its
sides, in pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ex4d.cli.flags import add_flags
from ex4d.cli.options import add_motion_mask_argument, add_overwrite_argument, device, whole_number
from ex4d.cli.report import Report
from ex4d_core.angle_offset import offset_of_corner
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.schema import fields_of
from ex4d_core.sources import DepthSettings, name_for_people

if TYPE_CHECKING:
    from ex4d.media import MotionMask

SUMMARY = "make a scene again with another depth offset, far limit or motion mask"
_SETTINGS = ("offset", "far_limit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", type=Path, help="a scene folder, made by 'ex4d reconstruct'")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the new scene")
    add_overwrite_argument(parser, "a scene that is in the folder")
    others = [entry.name for entry in fields_of(DepthSettings) if entry.name not in _SETTINGS]
    add_flags(parser, DepthSettings, skip=others)
    parser.add_argument(
        "--camera-fit", action="store_true", help="fit unit and offset to the scene's source camera, which must move"
    )
    parser.add_argument(
        "--square-corner",
        type=_pixel,
        nargs=3,
        metavar="X,Y",
        help="the offset under which these three pixels are a right angle, the first its corner",
    )
    parser.add_argument("--frame", type=whole_number, default=0, metavar="N", help="footage frame of --square-corner")
    add_motion_mask_argument(parser)
    parser.add_argument("--device", type=device, default="auto", help="for --camera-fit: auto, cpu, cuda or cuda:N")


def run(options: argparse.Namespace, report: Report) -> int:
    from ex4d.pipeline.scaled_depth import fit_notes, fitted_mapping
    from ex4d.pipeline.targets import require_scene_folder
    from ex4d_core.scene_remap import remap_scene

    scene = Scene.open(options.scene)
    depth_changes = options.camera_fit or (options.offset, options.far_limit, options.square_corner) != (None,) * 3
    if not depth_changes and options.motion_mask is None:
        raise RequestError(
            "nothing to change: give --depth-offset, --far-limit, --camera-fit, --square-corner or --motion-mask"
        )
    if options.square_corner and (options.offset is not None or options.camera_fit):
        raise RequestError("--square-corner finds the offset; leave --depth-offset and --camera-fit out")
    require_scene_folder(options.out, inputs=_inputs(options), overwrite=options.overwrite)
    mask = None if options.motion_mask is None else _motion_mask(scene, options.motion_mask, report)
    mapping, offset = scene.manifest.mapping, options.offset
    if options.camera_fit:
        with report.stages() as progress:
            fit = fitted_mapping(scene, options.device, offset, progress, mask)
        for text in fit_notes(fit):
            report.note(text)
        mapping = mapping if fit is None else fit.mapping
    if options.square_corner:
        offset = offset_of_corner(_points(scene, options.frame, options.square_corner), mapping)
    with report.stages() as progress:
        mapping = mapping.changed(offset, options.far_limit)
        made = remap_scene(
            scene,
            options.out,
            mapping if depth_changes else None,
            lambda done, total: progress("remap", done, total),
            mask=None if mask is None else mask.frames(),
            mask_label=name_for_people("" if mask is None else mask.path.name),
        )
    nearest, farthest = made.manifest.depth_range
    report.add("scene", options.out)
    report.add("mapping", mapping.to_wire(), str(mapping))
    report.add("depth", {"range": (nearest, farthest)}, f"{nearest:.4g} to {farthest:.4g}")
    if mask is not None:
        report.add("motion_mask", {"source": mask.path.name}, mask.path.name)
    return 0


def _inputs(options: argparse.Namespace) -> list[Path]:
    return [options.scene, *([] if options.motion_mask is None else [options.motion_mask])]


def _motion_mask(scene: Scene, path: Path, report: Report) -> MotionMask:
    """The mask at a path, which fits the scene."""
    from ex4d.media import FootageInfo, MotionMask

    manifest = scene.manifest
    footage = FootageInfo(Path(manifest.name), manifest.width, manifest.height, manifest.frames, manifest.fps)
    mask = MotionMask.open(path, footage)
    for text in mask.notes:
        report.note(text)
    return mask


def _points(scene: Scene, frame: int, pixels: list[tuple[float, float]]) -> np.ndarray:
    """(N, 3) the points that a frame shows at some pixels, in its camera's axes.

    Raises:
        RequestError: the scene has no such frame or pixel.
    """
    manifest = scene.manifest
    if frame >= manifest.frames:
        raise RequestError(f"--frame {frame} is not in the scene, which has frames 0 to {manifest.frames - 1}")
    for x, y in pixels:
        if not (0 <= x < manifest.width and 0 <= y < manifest.height):
            raise RequestError(f"{x:g},{y:g} is outside of the footage's {manifest.width}x{manifest.height} pixels")
    depth, lens = scene.depth()[frame], scene.source_camera().intrinsics[frame]
    at = np.array(pixels)
    left, above = np.clip(np.floor(at - 0.5), 0, (manifest.width - 2, manifest.height - 2)).astype(int).T
    right, below = np.clip(at.T - 0.5 - (left, above), 0, 1)
    corners = 1 / np.stack([depth[above + down, left + on] for down in (0, 1) for on in (0, 1)]).astype(np.float64)
    # Bilinear in disparity, in which planes are affine.
    upper, lower = (corners[k] * (1 - right) + corners[k + 1] * right for k in (0, 2))
    disparity = upper * (1 - below) + lower * below
    return np.c_[at, np.ones(len(at))] @ np.linalg.inv(lens).T / disparity[:, None]


def _pixel(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid pixel {text!r}: expected X,Y, such as 320,410.5") from None
    return x, y
