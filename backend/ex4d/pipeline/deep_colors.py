"""The footage's colours as half floats, for scenes of more than 8 bits: where they come from, and in which space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ex4d.media import FootageInfo, deep_source, read_deep_frames
from ex4d.media.colour_management import SRGB, Conversion, require_space
from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import ReconstructionSettings

_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class DeepColors:
    """How the frames of some footage become half floats in a working space.

    Attributes:
        footage: of `ex4d.media.probe`.
        space: the working space, by its name in the OpenColorIO configuration.
        kept: converts frames to it.
        shown: converts frames to sRGB for the scene's colours of 8 bits, where the user named the space that the
            footage is in; None where these are read as without half floats.
    """

    footage: FootageInfo
    space: str
    kept: Conversion
    shown: Conversion | None

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W, 3) float32 in the footage's own space."""
        return read_deep_frames(self.footage.path, count=self.footage.frames)

    def halves(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) float16 of a frame, in the working space."""
        return np.clip(self.kept.applied(picture), -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)

    def screen(self, picture: np.ndarray) -> np.ndarray | None:
        """(H, W, 3) uint8 sRGB of a frame, clipped to [0, 1]; None where frames are read in 8 bits."""
        if self.shown is None:
            return None
        return np.rint(np.clip(self.shown.applied(picture), 0.0, 1.0) * 255.0).astype(np.uint8)


def deep_colors(
    footage: FootageInfo, settings: ReconstructionSettings, note: Callable[[str], None]
) -> DeepColors | None:
    """What the settings ask for; None for 8 bits.

    Args:
        note: called with a sentence about what is kept, and in which colour space.

    Raises:
        RequestError: the footage's space is not known and not given.
        ColourSpaceError: an unknown space, or spaces differ and OpenColorIO is not installed.
        MediaError: the footage cannot be read.
    """
    if settings.bit_depth == "8":
        return None
    found = deep_source(footage.path)
    if settings.bit_depth == "auto" and found.bits <= 8:
        note(f"the footage has {found.bits} bits a channel, and so has the scene")
        return None
    source = settings.input_space or found.space
    if not source:
        raise RequestError(
            f"{footage.path.name}: its colour space is not known ({found.told_by}): name it with --input-space"
        )
    space = settings.working_space or source
    require_space(source)
    shown = Conversion(source, SRGB) if settings.input_space else None
    told_by = "as given" if settings.input_space else found.told_by
    note(
        f"{found.bits} bits a channel are kept as half floats (11 significant bits), which takes 6 bytes more a pixel: "
        f"from {source} ({told_by}) to {space}"
    )
    return DeepColors(footage, space, Conversion(source, space), shown)
