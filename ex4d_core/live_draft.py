"""The live draft of a shot: a few of its frames, small and in four steps, generated while the camera still moves."""

from __future__ import annotations

from dataclasses import replace

from ex4d_core.final_sizes import working_size
from ex4d_core.shot import ShotRequest
from ex4d_core.wan_settings import wan_preset

# 4n + 1, so that no frame is generated to be thrown away.
DRAFT_FRAMES = 17


def draft_places(frames: int) -> list[int]:
    """Which of a shot's frames its draft has: all, or `DRAFT_FRAMES` evenly from the first to the last."""
    if frames <= DRAFT_FRAMES:
        return list(range(frames))
    return [round(number * (frames - 1) / (DRAFT_FRAMES - 1)) for number in range(DRAFT_FRAMES)]


def live_draft(request: ShotRequest) -> ShotRequest:
    """The request for a shot's draft, with the preset live, and prompts, seed and adapter of the shot's own.

    Args:
        request: of the whole final; of a preview, which has no adapter, the draft has none either.
    """
    wan = request.wan
    settings = wan_preset(
        "live", prompt=wan.prompt, negative_prompt=wan.negative_prompt, seed=wan.seed, adapter=wan.adapter
    )
    camera, places = request.camera, draft_places(len(request.camera))
    aspect = float(camera.intrinsics[0, 1, 1] / camera.intrinsics[0, 0, 0])
    size = working_size(camera.width, camera.height, settings.max_pixels, aspect)
    shown = request.footage_frames
    return replace(
        request,
        camera=camera.at(places).resized(*size),
        first_frame=0,
        source_frames=tuple(shown[place] for place in places),
        render=replace(request.render, samples=1),
        engine="wan",
        wan=settings,
        label="live draft",
    )
