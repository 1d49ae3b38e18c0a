"""Render colour and mask movies of a scene from a new camera: what the footage saw, and where it saw nothing.

Writes color_NAME.mp4, mask_NAME.mp4 and camera_NAME.npz into a folder, or everything losslessly into one .npz
(color (T,H,W,3) u8, mask (T,H,W) bool, coverage (T,)). With --remember also remembered_NAME.mp4, or remembered
(T,H,W) bool. With --format, a scene of more than 8 bits is written as EXR or 16-bit PNG files, or as a movie of
10 bits. With --stereo both eyes: side by side (an .npz then has depth (T,H,W), too), or in files whose names end in _L
and _R. In place of a scene it also takes one .npz with depth (T,H,W), rgb (T,H,W,3) and intrinsics (3,3).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.cli.dry_run import add_dry_run_argument, tell
from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.options import (
    add_camera_arguments,
    add_overwrite_argument,
    add_render_arguments,
    add_stereo_arguments,
    camera_from,
    machine_settings,
    render_settings,
    stereo_settings,
)
from ex4d.cli.report import Report
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage, Scene, SceneError
from ex4d_core.shot import require_stereo
from ex4d_core.stereo import EYES, StereoSettings

SUMMARY = "render colour and mask movies of a scene from a new camera"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", type=Path, help="a scene folder, made by 'ex4d reconstruct', or a .npz")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a file that ends in .npz")
    add_overwrite_argument(parser, "files of an earlier render")
    add_dry_run_argument(parser)
    add_camera_arguments(parser)
    add_render_arguments(parser)
    add_stereo_arguments(parser)
    add_flags(parser.add_argument_group("output"), OutputSettings)


def run(options: argparse.Namespace, report: Report) -> int:
    from ex4d.pipeline.array_clip import ArrayClip
    from ex4d.pipeline.outputs import is_arrays

    scene = ArrayClip.load(options.scene) if options.scene.suffix == ".npz" else Scene.open(options.scene)
    camera = camera_from(options, scene, report.note)
    settings, output = render_settings(options, scene), settings_from(options, OutputSettings)
    stereo = stereo_settings(options, scene, camera, report.note)
    require_stereo(stereo, settings)
    if output.is_deep and is_arrays(options.out):
        raise RequestError(f"--format {output.format} writes into a folder, not into {options.out.name}")
    if output.is_deep and not isinstance(scene, Scene):
        raise SceneError(f"{options.scene} has colours of 8 bits: reconstruct a scene with --bit-depth 16")
    how = {"first_frame": options.first_frame, "source_frames": options.source_frames}
    how |= {"device": options.device, "machine": machine_settings(options)}
    name = options.camera.stem if options.camera else options.preset
    renders = {"": camera}
    if stereo.layout == "files":
        if is_arrays(options.out):
            raise RequestError(f"--stereo files writes into a folder, not into {options.out.name}: give side-by-side")
        renders = {f"_{eye}": path for eye, path in zip(EYES, stereo.eyes(camera), strict=True)}
        stereo = StereoSettings()
    if options.dry_run:
        from ex4d.pipeline.estimate import total
        from ex4d.pipeline.shot_estimates import estimate_render

        how |= {"arrays": is_arrays(options.out), "output": output if output.is_deep else None, "stereo": stereo}
        needed = total(estimate_render(scene, camera, settings, **how) for camera in renders.values())
        tell(needed, options.out, report)
        return 0
    how |= {"note": report.note, "stereo": stereo}
    for eye, camera in renders.items():
        with report.of_part(eye):
            if output.is_deep and isinstance(scene, Scene):
                _run_deep(options, report, scene, camera, output, name + eye, how)
            else:
                _run_movies(options, report, scene, camera, settings, name + eye, how)
    return 0


def _run_movies(
    options: argparse.Namespace,
    report: Report,
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    name: str,
    how: dict[str, Any],
) -> None:
    """Write a render of 8 bits: movies, or arrays."""
    from ex4d.pipeline.outputs import is_arrays, render_movies, render_views, require_render_target

    out, inputs = options.out, [options.scene, *filter(None, [options.camera])]
    require_render_target(out, name, inputs=inputs, overwrite=options.overwrite)
    if is_arrays(out):
        with report.stages() as progress:
            views = render_views(scene, camera, settings, **how, progress=progress)
            views.save(out, overwrite=options.overwrite)
        report.add("arrays", out)
        visible = views.visible_fraction
        remembered = None if views.remembered is None else views.remembered.mean(axis=(1, 2))
    else:
        how |= {"inputs": inputs, "overwrite": options.overwrite}
        with report.stages() as progress:
            movies = render_movies(scene, camera, settings, out, name, **how, progress=progress)
        report.add("color", movies.color, f"{movies.color}")
        report.add("mask", movies.mask)
        if movies.remembered is not None:
            report.add("remembered", movies.remembered)
        report.add("camera", movies.camera)
        visible = movies.visible_fraction
        remembered = movies.remembered_fraction if movies.remembered is not None else None
    _report_seen(report, settings, visible)
    if remembered is not None:
        _report_remembered(report, remembered)


def _run_deep(
    options: argparse.Namespace,
    report: Report,
    scene: Scene,
    camera: CameraPath,
    output: OutputSettings,
    name: str,
    how: dict[str, Any],
) -> None:
    """Write a render of more than 8 bits."""
    from ex4d.pipeline.deep_outputs import render_deep

    settings = render_settings(options, scene)
    inputs = [options.scene, *filter(None, [options.camera])]
    how = {**how, "inputs": inputs, "overwrite": options.overwrite}
    with report.stages() as progress:
        made = render_deep(scene, camera, settings, output, options.out, name, **how, progress=progress)
    first, last = made.color[0], made.color[-1]
    report.add("color", list(made.color), f"{first}" if first == last else f"{first} to {last.name}")
    if made.mask is not None:
        report.add("mask", made.mask)
    if made.remembered is not None:
        report.add("remembered", made.remembered)
    report.add("camera", made.camera)
    report.add("color_space", made.space)
    _report_seen(report, settings, made.visible_fraction)
    if settings.remember:
        _report_remembered(report, made.remembered_fraction)


def _report_remembered(report: Report, remembered: np.ndarray) -> None:
    report.add("remembered_fraction", remembered, f"{100 * remembered.mean():.1f} % on average")


def _report_seen(report: Report, settings: RenderSettings, visible: np.ndarray) -> None:
    percent = 100 * visible
    seen = f"{percent.mean():.1f} % on average, {percent.min():.1f} % in frame {percent.argmin()}"
    report.add("occlusion", settings.occlusion)
    report.add("visible_fraction", visible, seen)
