"""Writes OpenEXR files for compositing: half-float colour, alpha, depth, positions, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from ex4d.media.deep_source import chromaticities_of
from ex4d.media.media_errors import MediaError, atomic_write, system_reason, translate_write_errors
from ex4d.media.timecode import paired_timecode
from ex4d_core import __version__
from ex4d_core.cameras import openexr_from_world_to_camera

_COMPRESSIONS = {"zip": OpenEXR.ZIP_COMPRESSION, "dwaa": OpenEXR.DWAA_COMPRESSION}
PREFIX = "ex4d/"


def write_exr(
    path: Path,
    color: np.ndarray,
    *,
    depth: np.ndarray | None = None,
    position: np.ndarray | None = None,
    channels: Mapping[str, np.ndarray] | None = None,
    space: str = "",
    compression: str = "zip",
    timecode: tuple[int, int, int, int, bool] | None = None,
    fps: Fraction = Fraction(24),
    world_to_camera: np.ndarray | None = None,
    pixel_aspect: float = 1.0,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file, completely or not at all; an existing one is replaced.

    Args:
        color: (H, W, 4) float16 premultiplied, channels R, G, B and A; or (H, W, 3) without alpha.
        depth: (H, W) float32, channel Z.
        position: (H, W, 3) float32, channels P.X, P.Y and P.Z.
        channels: further ones, (H, W) float16 or float32, by their names.
        space: name of the colours' space; of linear ones, primaries are written as chromaticities.
        compression: "zip" or "dwaa"; what is not colour or alpha is exact with both.
        timecode: as of `timecode_after`; written at rates that ST 12-1 has.
        fps: that the timecode counts by.
        world_to_camera: (4, 4), OpenCV axes; becomes the attribute `worldToCamera`, in OpenEXR's.
        pixel_aspect: width of a pixel by its height.
        metadata: texts by name, which become attributes named ex4d/NAME.

    Raises:
        MediaError: the file cannot be written.
    """
    header: dict[str, Any] = {
        "type": OpenEXR.scanlineimage,
        "compression": _COMPRESSIONS[compression],
        "pixelAspectRatio": float(pixel_aspect),
        **{PREFIX + name: text for name, text in (metadata or {}).items()},
    }
    if space:
        header[PREFIX + "colorSpace"] = space
    if (primaries := chromaticities_of(space)) is not None:
        header["chromaticities"] = primaries
    if world_to_camera is not None:
        header["worldToCamera"] = openexr_from_world_to_camera(world_to_camera).astype(np.float32, order="C")
    if timecode is not None and (paired := paired_timecode(timecode, fps)) is not None:
        code = OpenEXR.TimeCode()
        code.hours, code.minutes, code.seconds, code.frame, dropped = paired[0]
        code.dropFrame, code.fieldPhase = int(dropped), int(paired[1])
        header["timeCode"] = code
    written: dict[str, np.ndarray] = {"RGBA"[: color.shape[2]]: np.ascontiguousarray(color, np.float16)}
    if depth is not None:
        written["Z"] = np.ascontiguousarray(depth, np.float32)
    if position is not None:
        for axis, name in enumerate("XYZ"):
            written[f"P.{name}"] = np.ascontiguousarray(position[..., axis], np.float32)
    written |= {name: np.ascontiguousarray(values) for name, values in (channels or {}).items()}
    _write(path, header, written)


def write_exr_channels(path: Path, channels: Mapping[str, np.ndarray]) -> None:
    """Write channels (H, W) of float16, float32 or uint32, completely or not at all; an existing file is replaced.

    Raises:
        MediaError: the file cannot be written.
    """
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    header[PREFIX + "version"] = __version__
    _write(path, header, {name: np.ascontiguousarray(values) for name, values in channels.items()})


def _write(path: Path, header: dict[str, Any], channels: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as partial, translate_write_errors(path):
        try:
            with OpenEXR.File(header, channels) as file:
                file.write(str(partial))
        except RuntimeError as error:
            raise MediaError(f"{path}: cannot be written ({system_reason(error)}). Free disk space there.") from error


def read_exr_metadata(path: Path) -> dict[str, str]:
    """The texts that this module wrote, by name; empty for files of other programs, and for what is no EXR."""
    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            header = dict(file.parts[0].header)
    except (RuntimeError, ValueError, OSError):
        return {}
    return {name.removeprefix(PREFIX): value for name, value in header.items() if name.startswith(PREFIX)}
