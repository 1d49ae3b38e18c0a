"""What renders and takes need more in more than 8 bits: parts of the estimates of `shot_estimates.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ex4d_core.shot import ShotRequest

# Of one frame: in float32 for each conversion, its channels, and what an encoder holds.
DEEP_BYTES_PER_PIXEL = 150
# Of each frame that waits for the generator: depth, mask, and colours in 8 bits and half floats.
_WAITING_BYTES_PER_PIXEL = 14
# Of the generator's picture on disk, where no preview shows what it takes; measured on the sample, enlarged by half.
_FILE_BYTES = {"exr": 3.3, "png16": 5.1, "prores4444": 1.0, "dnxhr": 0.5, "h265": 0.1}
# And in EXR files besides: depth and mask, positions, and motion vectors to one frame.
_DEPTH_BYTES, _POSITION_BYTES, _MOTION_BYTES = 3, 8, 5


def deep_take_memory(request: ShotRequest, hidden: int) -> int:
    """Bytes that a take needs in more than 8 bits; of the engine wan, all frames of a window wait for the generator.

    Args:
        hidden: frames of a lead-in.
    """
    wan, (width, height), frames = request.wan, request.frame_size, len(request.camera)
    waiting = min(frames, (wan.window + hidden) * wan.stride) if request.engine == "wan" else 1
    return width * height * (DEEP_BYTES_PER_PIXEL + _WAITING_BYTES_PER_PIXEL * waiting)


def deep_frame_bytes(request: ShotRequest) -> float:
    """What a frame of a final in more than 8 bits takes on disk, about."""
    output, (width, height), more = request.output, request.camera.size, 0
    if output.format == "exr":
        steps = {"none": 0, "both": 2}.get(output.motion, 1)
        more = _DEPTH_BYTES + _POSITION_BYTES * output.position + _MOTION_BYTES * steps
    return width * height * (_FILE_BYTES[output.format] + more)
