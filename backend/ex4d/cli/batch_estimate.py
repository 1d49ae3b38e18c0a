"""Estimates what is left of a batch, before any of its scenes is there."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from ex4d.cli.batch_file import Shot
from ex4d.cli.batch_run import BatchState
from ex4d.cli.options import machine_settings, wan_settings
from ex4d.cli.reconstruct import settings_of
from ex4d.media import FootageInfo, probe
from ex4d.pipeline.estimate import Estimate, total
from ex4d.pipeline.scene_estimates import chosen_estimator, estimate_scene
from ex4d.pipeline.shot_estimates import estimate_render_of_footage, estimate_take_of_footage
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import Scene
from ex4d_core.stereo import MAX_EYE_SIDE


def estimate_shots(
    shots: Sequence[Shot], state: BatchState, device: str, *, disk_only: bool = False
) -> tuple[Estimate, dict[str, str]]:
    """What the shots need that are not finished, one after the other, and why some are not in the estimate, by name.

    Args:
        disk_only: leave time and memory of models out, so that torch is not imported.
    """
    device = "cpu" if disk_only else device
    parts, unreadable, scenes = [], {}, set()
    for shot in shots:
        if state.finished(shot.view):
            continue
        try:
            if shot.scene is not None and shot.scene.out not in scenes and not state.finished(shot.scene):
                parts.append(_scene(shot.scene.options, device, disk_only))
                scenes.add(shot.scene.out)
            parts.append(_view(shot, device, disk_only))
        except (Ex4dError, OSError) as error:  # it will fail with this reason, the others will not
            unreadable[shot.name] = str(error)
    return total(parts), unreadable


def _scene(options: argparse.Namespace, device: str, disk_only: bool) -> Estimate:
    settings = settings_of(options, options.footage)
    estimator = None if disk_only else chosen_estimator(settings.depth, device, machine_settings(options))
    footage = probe(options.footage, options.num_frames)
    return estimate_scene(footage, settings.convention, estimator=estimator, device=device, mesh=options.mesh)


def _view(shot: Shot, device: str, disk_only: bool) -> Estimate:
    if shot.view.verb == "reconstruct":
        return _scene(shot.view.options, device, disk_only)
    options, footage = shot.view.options, _footage(shot)
    width, height = options.size or (footage.width, footage.height)
    frames = options.frames or len(options.source_frames or ()) or footage.frames - options.first_frame
    if options.camera:
        camera = CameraPath.load(options.camera, footage.width, footage.height, options.camera_convention)
        frames = min(frames, len(camera))
        width, height = options.size or camera.size
    frames = max(1, frames)
    if options.layout == "vr180":
        # A lens of 50 degrees, as footage is taken to have where nothing else is known.
        height = min(options.vr180_side or round(math.pi * width / 2 / math.tan(math.radians(25))), MAX_EYE_SIDE)
        width = height
    if options.layout != "off":
        width *= 2
    if shot.view.verb == "render":
        return estimate_render_of_footage(frames, width, height, device)
    engine = options.engine or "preview"
    wan, own_camera = wan_settings(options), options.camera is not None
    return estimate_take_of_footage(footage, frames, width, height, wan, device, engine, own_camera=own_camera)


def _footage(shot: Shot) -> FootageInfo:
    if shot.scene is not None:
        options = shot.scene.options
        return probe(options.footage, options.num_frames)
    scene = Scene.open(Path(shot.view.words[0]))
    return probe(scene.path("footage" if "footage" in scene.manifest.files else "color"))
