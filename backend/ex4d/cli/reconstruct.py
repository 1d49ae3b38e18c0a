"""Build a scene folder from footage and its depth: the DW-Mesh of every frame, ready for Blender and for rendering.

Depth is read from files (--depth), or estimated. With --input_video it is `ex4d original recon`.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.dry_run import add_dry_run_argument, tell
from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.options import (
    add_accept_licence_argument,
    add_motion_mask_argument,
    add_overwrite_argument,
    device,
    machine_settings,
    positive_number,
)
from ex4d.cli.parsing import refuse_without_effect
from ex4d.cli.report import Report
from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.scene import Scene
from ex4d_core.sources import MIST_FALLOFFS, DepthSettings, MistPass, depth_layout

if TYPE_CHECKING:
    from ex4d.pipeline.estimate import Estimate

SUMMARY = "build a scene folder from footage and its depth"
_ESTIMATOR_FIELDS = ("estimator", "licence", "refine_edges", "temporal_alignment", "full_precision")
_DEPTH_FIELDS = ("scale", "inverse", "values", "invalid", "key", "noise_filter")
_CAMERA_FIELDS = ("camera_scale", "camera_motion", "camera_gaps")
_LENS_FIELDS = ("fov_degrees", "focal_mm", "sensor_mm", "focal_px")
_COLOR_FIELDS = ("bit_depth", "input_space", "working_space")
_FOOTAGE_FIELDS = ("name", "fps", "convention")
_SCALE_FIELDS = ("offset", "far_limit", "camera_fit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("footage", type=Path, help="a video, or a folder of images")
    parser.add_argument("-o", "--out", type=Path, help="folder for the scene; default: beside the footage")
    parser.add_argument(
        "--frames",
        "--num_frames",
        dest="num_frames",
        type=positive_number,
        metavar="N",
        help="take the first N frames; depth files may have more",
    )
    add_overwrite_argument(parser, "a scene that is in the folder, and files made with it")
    parser.add_argument(
        "--mesh",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also write the mesh's positions, which Blender otherwise writes when it imports the scene",
    )
    add_dry_run_argument(parser)
    add_flags(parser, ReconstructionSettings, skip=(*_LENS_FIELDS, *_COLOR_FIELDS, *_CAMERA_FIELDS))

    depth = parser.add_argument_group("depth")
    depth.add_argument(
        "--depth",
        type=Path,
        help="known depth: .npz or .npy (T,H,W), a folder of EXR or 16-bit PNG files, or a grey video",
    )
    add_flags(depth, DepthSettings, skip=(*_ESTIMATOR_FIELDS, *_SCALE_FIELDS))
    depth.add_argument(
        "--mist",
        type=float,
        nargs=2,
        metavar=("START", "DEPTH"),
        help="the EXR files hold Blender's mist pass, rendered with these world settings",
    )
    depth.add_argument("--mist-falloff", choices=tuple(MIST_FALLOFFS), default="linear", help="falloff of the mist")

    relative = parser.add_argument_group("relative depth, whose unit and offset are unknown")
    add_flags(relative, DepthSettings, skip=(*_DEPTH_FIELDS, *_ESTIMATOR_FIELDS))

    parser.add_argument(
        "--source-camera",
        type=Path,
        help="file of the moving source camera: .npz, NeRF's transforms.json, or a COLMAP model's or project's folder",
    )
    add_flags(parser, ReconstructionSettings, skip=(*_LENS_FIELDS, *_COLOR_FIELDS, *_FOOTAGE_FIELDS))
    colours = parser.add_argument_group("colours of more than 8 bits")
    add_flags(colours, ReconstructionSettings, skip=(*_LENS_FIELDS, *_CAMERA_FIELDS, *_FOOTAGE_FIELDS))
    add_motion_mask_argument(parser)

    estimator = parser.add_argument_group("estimated depth (without --depth)")
    add_flags(estimator, DepthSettings, skip=(*_DEPTH_FIELDS, *_SCALE_FIELDS), estimator="auto")
    add_accept_licence_argument(estimator)
    estimator.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="weights; default: $EX4D_MODELS, else user data",
    )
    estimator.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")

    lens_group = parser.add_argument_group(
        "intrinsics (default: from the camera file, depth files or footage, else a field of view of 50 degrees; with "
        "--convention reference EX-4D's focal length of 500 pixels)"
    )
    add_flags(lens_group, ReconstructionSettings, skip=(*_FOOTAGE_FIELDS, *_COLOR_FIELDS, *_CAMERA_FIELDS))


def run(options: argparse.Namespace, report: Report) -> int:
    from ex4d.pipeline.reconstruct import reconstruct
    from ex4d.pipeline.source_paths import SourcePaths

    path = options.footage.resolve()
    if not path.name:
        raise RequestError(f"invalid footage {path}: expected a video file or a folder of images")
    _refuse_useless_options(options)
    settings = settings_of(options, path)
    folder = options.out or path.with_suffix("").with_name(path.stem + "_scene")
    if options.dry_run:
        tell(_estimate(options, settings, path), folder, report)
        return 0
    with report.stages() as progress:
        scene = reconstruct(
            SourcePaths(path, options.depth, options.source_camera, options.motion_mask),
            settings,
            folder,
            device=options.device,
            machine=machine_settings(options),
            frames=options.num_frames,
            mesh=options.mesh,
            progress=progress,
            note=report.note,
            overwrite=options.overwrite,
        )
    _report_scene(scene, folder, report)
    return 0


def _refuse_useless_options(options: argparse.Namespace) -> None:
    if options.depth is None:
        refuse_without_effect(options, (*_DEPTH_FIELDS, "mist"), "without --depth")
    else:
        # --device stays allowed: scripts that start a command for each device give it to all verbs.
        names = (*_ESTIMATOR_FIELDS, "accept_licence", "models")
        refuse_without_effect(options, names, "with --depth, since nothing is estimated")
    if not options.mist:
        refuse_without_effect(options, ["mist_falloff"], "without --mist")
    if not options.source_camera:
        refuse_without_effect(options, ["camera_scale", "camera_gaps"], "without --source-camera")
    else:
        refuse_without_effect(options, ["camera_motion"], "with --source-camera, which has the poses")
    if options.focal_mm is None:
        refuse_without_effect(options, ["sensor_mm"], "without --focal-mm")


def settings_of(options: argparse.Namespace, footage: Path) -> ReconstructionSettings:
    """What the options ask for; raises RequestError where they do not go together."""
    layout = "estimator" if options.depth is None else depth_layout(options.depth)
    mist = None
    if options.mist:
        start, depth = options.mist
        mist = MistPass(start, depth, options.mist_falloff)
    of_depth = settings_from(options, DepthSettings, layout=layout, mist=mist)
    return settings_from(options, ReconstructionSettings, name=options.name or footage.stem, depth=of_depth)


def _estimate(options: argparse.Namespace, settings: ReconstructionSettings, footage: Path) -> Estimate:
    from ex4d.media import probe
    from ex4d.pipeline.deep_colors import deep_colors
    from ex4d.pipeline.scene_estimates import chosen_estimator, estimate_scene

    estimator = chosen_estimator(settings.depth, options.device, machine_settings(options))
    info = probe(footage, options.num_frames, fps=Fraction(*settings.fps) if settings.fps else None)
    deep = deep_colors(info, settings, lambda text: None) is not None
    parts = {"mesh": options.mesh, "mask": options.motion_mask is not None, "deep": deep}
    return estimate_scene(info, settings.convention, estimator=estimator, device=options.device, **parts)


def _report_scene(scene: Scene, folder: Path, report: Report) -> None:
    manifest, origin = scene.manifest, scene.manifest.provenance
    size, fps = (manifest.width, manifest.height), float(manifest.fps)
    nearest, farthest = manifest.depth_range
    focal = float(scene.source_camera().intrinsics[0, 0, 0])
    report.add("scene", folder)
    report.add(
        "footage",
        {"frames": manifest.frames, "size": size, "fps": fps},
        f"{manifest.frames} frames, {size[0]}x{size[1]}, {fps:g} fps",
    )
    if manifest.is_deep:
        report.add("color_space", manifest.color_space, f"{manifest.color_space}, half floats beside 8 bits")
    report.add(
        "depth",
        {"range": (nearest, farthest), "scale": manifest.depth_scale},
        f"{nearest:.4g} to {farthest:.4g} ({manifest.depth_scale})",
    )
    report.add(
        "depth_source",
        {"source": origin["depth"], "licence": origin["depth licence"]},
        f"{origin['depth']}; licence: {origin['depth licence']}",
    )
    if "source camera" in origin:
        report.add("source_camera", {"source": origin["source camera"]}, origin["source camera"])
    if "motion mask" in origin:
        report.add("motion_mask", {"source": origin["motion mask"]}, origin["motion mask"])
    report.add(
        "lens", {"focal_px": focal, "source": origin["focal length"]}, f"{focal:.1f} px, from {origin['focal length']}"
    )
