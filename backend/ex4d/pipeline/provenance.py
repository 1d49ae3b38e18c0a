"""Where a take came from: the program, the machine and the footage, as ``made_by`` in its request.json."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from typing import Any

import torch

from ex4d.devices import Devices
from ex4d.generation import Engine
from ex4d.machine import MachineSettings
from ex4d.pipeline.deep_take import draws_deep_colors, take_space
from ex4d.pipeline.render import settings_for_deep_colors
from ex4d.raster import choose_rasterizer
from ex4d_core import __version__
from ex4d_core.final_sizes import generation_size
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest

# Its key in request.json. What stands below it is no part of the request: two takes of one request may differ in it.
MADE_BY = "made_by"


def made_by(
    scene: Scene, request: ShotRequest, engine: Engine, device: str, machine: MachineSettings | None
) -> dict[str, Any]:
    """What a take can be traced by; all of it but the date is the same for the same take on the same machine.

    Args:
        device: as the take's, "auto" say.

    Returns:
        ``ex4d`` and ``torch`` (versions), ``date`` (UTC), ``device`` (in words), ``rasterizer`` and ``precision`` as
        used on this machine, ``generated_at`` ([width, height]) and ``enlarged_by`` (in words, "" where nothing was),
        ``color_space`` of the files of more than 8 bits ("" without any), and ``footage``: name, sha256, fps
        ([numerator, denominator]) and timecode of its first frame, each "" where it is not known.
    """
    devices = Devices.parse(device)
    settings = request.render
    if draws_deep_colors(scene, request):
        settings = settings_for_deep_colors(settings)
    drawn = choose_rasterizer(settings.rasterizer, devices.first, settings.licence, machine)
    origin, fps = scene.manifest.origin, scene.manifest.fps
    size = generated_at(request)
    footage = {**vars(origin), "fps": [fps.numerator, fps.denominator]}
    return {
        "ex4d": __version__,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": ", ".join(map(_in_words, devices.resolve().names)),
        "rasterizer": drawn.name,
        "precision": engine.precision,
        "generated_at": list(size),
        "enlarged_by": engine.enlarging if size != request.frame_size else "",
        "color_space": take_space(scene, request.output) if request.output.is_deep else "",
        "footage": footage,
    }


def generated_at(request: ShotRequest) -> tuple[int, int]:
    """(width, height) that an engine makes a take's frames at."""
    camera = request.camera
    if request.engine != "wan":
        return request.frame_size
    across, down = camera.intrinsics[0, 0, 0], camera.intrinsics[0, 1, 1]
    return generation_size(request.wan, *camera.size, float(down / across))


def _in_words(device: str) -> str:
    return f"{torch.cuda.get_device_name(device)} ({device})" if device != "cpu" else f"CPU ({platform.machine()})"
