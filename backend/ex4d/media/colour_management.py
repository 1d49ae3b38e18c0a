"""Colour spaces by name, converted by OpenColorIO (extra `colour`), for footage and renders of more than 8 bits.

Names are those of $OCIO's configuration, as in other programs, else of the ACES configuration that OpenColorIO brings
along. Nothing is converted, and OpenColorIO is not needed, where both names are the same.
"""

from __future__ import annotations

import difflib
import functools
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ex4d.installation import install_command
from ex4d_core.errors import Ex4dError

# The oldest of the built-in configurations with the cameras' spaces, so that names mean the same in all releases.
BUILT_IN = "ocio://studio-config-v2.1.0_aces-v1.3_ocio-v2.3"
SRGB = "sRGB - Texture"
LINEAR_SRGB = "Linear Rec.709 (sRGB)"
ACESCG, ACES = "ACEScg", "ACES2065-1"
LINEAR_REC2020, LINEAR_P3 = "Linear Rec.2020", "Linear P3-D65"
PQ, HLG = "Rec.2100-PQ - Display", "Rec.2100-HLG - Display"

_MODULE = "PyOpenColorIO"
_ROWS_AT_ONCE = 256
_SIMILAR = 5


class ColourSpaceError(Ex4dError):
    """An unknown colour space, or no OpenColorIO to convert with; the message says what to do."""


class Conversion:
    """Converts pictures from one colour space to another; does nothing where both are the same."""

    def __init__(self, source: str, target: str) -> None:
        """Prepare a conversion.

        Raises:
            ColourSpaceError: an unknown name, or OpenColorIO is not installed.
        """
        self.source, self.target = source, target
        self._processor: Any = None
        if source != target:
            config = _config()
            names = [_known_name(config, name) for name in (source, target)]
            if names[0] != names[1]:
                self._processor = config.getProcessor(*names).getDefaultCPUProcessor()

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self._processor is not None

    def applied(self, picture: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) float32 in the other space; itself where nothing changes."""
        if self._processor is None:
            return picture
        result = np.array(picture, np.float32, order="C")
        for top in range(0, len(result), _ROWS_AT_ONCE):
            self._processor.applyRGB(result[top : top + _ROWS_AT_ONCE])
        return result


def require_space(name: str) -> None:
    """Check the name of a colour space, before long work; nothing is checked without OpenColorIO.

    Raises:
        ColourSpaceError: no space has this name.
    """
    if find_spec(_MODULE) is not None:
        _known_name(_config(), name)


@functools.lru_cache(maxsize=1)
def _config() -> Any:
    try:
        ocio: Any = import_module(_MODULE)
    except ImportError as error:
        raise ColourSpaceError(
            "colour spaces are converted by OpenColorIO, which is not installed: "
            f"{install_command('colour')}, or leave the working and output space at the footage's own"
        ) from error
    source = os.environ.get("OCIO") or BUILT_IN
    try:
        return ocio.Config.CreateFromFile(source)
    except ocio.Exception as error:
        reason = str(error).splitlines()[0]
        raise ColourSpaceError(f"cannot read the OpenColorIO configuration {source}: {reason}; check $OCIO") from error


def _known_name(config: Any, name: str) -> str:
    """The configuration's own name of a space that is given by name, alias or role."""
    space = config.getColorSpace(name)
    if space is not None:
        return space.getName()
    ocio: Any = import_module(_MODULE)
    every = list(config.getColorSpaceNames(ocio.SEARCH_REFERENCE_SPACE_ALL, ocio.COLORSPACE_ACTIVE))
    by_lower = {one.lower(): one for one in every}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    similar = [by_lower[one] for one in difflib.get_close_matches(name.lower(), by_lower, _SIMILAR, 0.4)]
    raise ColourSpaceError(
        f"unknown colour space {name!r}: expected a name of the OpenColorIO configuration {config.getName()}, such as "
        f"{', '.join(similar or every[:_SIMILAR])}"
    )
