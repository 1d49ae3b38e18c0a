"""What footage holds beyond 8 bits: its bits a channel, and the colour space that its files name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import OpenEXR

from ex4d.media import colour_management as spaces
from ex4d.media.colour import BT2020, DISPLAY_P3, LINEAR, UNSPECIFIED, ColourSpace, colour_of
from ex4d.media.exr import read_exr_channels
from ex4d.media.icc import conversion_of, profile_of
from ex4d.media.media_errors import MediaError
from ex4d.media.png import png_frame
from ex4d.media.scan import decoded_frames, open_video, scan
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, sequence_files

# CIE 1931 x and y of red, green, blue and white.
_PRIMARIES = {
    spaces.LINEAR_SRGB: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    spaces.ACESCG: (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767),
    spaces.ACES: (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767),
    spaces.LINEAR_REC2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    spaces.LINEAR_P3: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.3290),
}
_SAME_PRIMARIES = 2e-3
_HALF_BITS, _FLOAT_BITS = 16, 32


@dataclass(frozen=True)
class DeepSource:
    """What is known of the values of footage.

    Attributes:
        bits: of a channel.
        space: name of their colour space; "" where the files name one that is not known here.
        told_by: what says so, in words.
    """

    bits: int
    space: str
    told_by: str


def deep_source(path: Path) -> DeepSource:
    """Look at the first frame of footage.

    Raises:
        MediaError: it cannot be read.
    """
    if not is_sequence(path):
        found = scan(path)
        with open_video(path) as (container, stream):
            frame = next(iter(decoded_frames(container, stream)), None)
        if frame is None:
            raise MediaError(f"{path}: no frame is readable. Copy or export it again.")
        profile = None if found.profile is None else found.profile.name
        return _of_frame(frame, found.declared, profile)
    file = sequence_files(path, IMAGE_SUFFIXES)[0]
    if file.suffix.lower() == ".exr":
        return _of_exr(file)
    if file.suffix.lower() == ".png":
        frame = png_frame(file.read_bytes(), file)
    else:
        with open_video(file) as (container, stream):
            frame = next(iter(decoded_frames(container, stream)), None)
        if frame is None:  # JPEG in TIFF, which Pillow reads, has 8 bits
            return DeepSource(8, spaces.SRGB, "images of 8 bits")
    profile = conversion_of(profile_of(file))
    return _of_frame(frame, ColourSpace(), None if profile is None else profile.name)


def _of_frame(frame: av.VideoFrame, declared: ColourSpace, profile: str | None) -> DeepSource:
    bits = max(component.bits for component in frame.format.components)
    if profile is not None:
        return DeepSource(bits, "", f"the ICC profile {profile}")
    space = colour_of(frame, declared)
    return DeepSource(bits, _space_of(space), _told_by(space))


def _space_of(space: ColourSpace) -> str:
    wide = {BT2020: spaces.LINEAR_REC2020, DISPLAY_P3: spaces.LINEAR_P3}
    if space.is_pq:
        return spaces.PQ
    if space.is_hdr:
        return spaces.HLG
    if space.transfer == LINEAR:
        return wide.get(space.primaries, spaces.LINEAR_SRGB)
    return "" if space.primaries in wide else spaces.SRGB


def _told_by(space: ColourSpace) -> str:
    if space.primaries == space.transfer == UNSPECIFIED:
        return "files that name none are taken as sRGB"
    return f"primaries {space.primaries} and transfer {space.transfer} of H.273"


def _of_exr(file: Path) -> DeepSource:
    with OpenEXR.File(str(file), separate_channels=True, header_only=True) as opened:
        header = dict(opened.parts[0].header)
    is_half = all(values.dtype == np.float16 for values in read_exr_channels(file).values())
    bits = _HALF_BITS if is_half else _FLOAT_BITS
    stated = header.get("chromaticities")
    if stated is None:
        return DeepSource(bits, spaces.LINEAR_SRGB, "an EXR without chromaticities is taken as linear sRGB")
    values = np.array(stated, np.float64).reshape(-1)
    for name, primaries in _PRIMARIES.items():
        if values.shape == (8,) and np.abs(values - primaries).max() < _SAME_PRIMARIES:
            return DeepSource(bits, name, "the chromaticities of the EXR")
    return DeepSource(bits, "", f"an EXR with the chromaticities {np.round(values, 4).tolist()}")


def chromaticities_of(space: str) -> tuple[float, ...] | None:
    """The eight numbers of an EXR's chromaticities for a linear space; None for others."""
    return _PRIMARIES.get(space)
