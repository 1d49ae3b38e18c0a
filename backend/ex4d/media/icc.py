"""ICC profiles of images: found with Pillow, and colours converted to sRGB by LittleCMS.

PyAV cannot be asked: in its releases 17.1 to 18.1, looking at the side data of a PNG's frame frees the profile's name
twice, which ends the process then or later.
"""

from __future__ import annotations

import functools
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

# Differences of this many levels come from rounding: the profile is sRGB under whatever name.
_SAME_LEVELS = 1


class IccConversion:
    """Converts (H, W, 3) uint8 images from a profile's colours to sRGB."""

    def __init__(self, name: str, transform: ImageCms.ImageCmsTransform) -> None:
        """Keep LittleCMS's transform, and the profile's name for people."""
        self.name = name
        self._transform = transform

    def converted(self, image: np.ndarray) -> np.ndarray:
        """The image in sRGB."""
        return np.asarray(ImageCms.applyTransform(Image.fromarray(image), self._transform))

    @property
    def note(self) -> str:
        """What is done, for the artist."""
        return f"colours are converted from the ICC profile {self.name} to sRGB"


def profile_of(image_file: bytes | Path) -> bytes:
    """The ICC profile of an image file or its content; empty for none, or where Pillow cannot read it."""
    source = io.BytesIO(image_file) if isinstance(image_file, bytes) else image_file
    with suppress(UnidentifiedImageError, OSError, ValueError, SyntaxError), Image.open(source) as image:
        return image.info.get("icc_profile") or b""
    return b""


@functools.lru_cache(maxsize=16)
def conversion_of(profile: bytes) -> IccConversion | None:
    """The conversion from a profile; None for sRGB, for profiles of grey or CMYK images, and for damaged ones."""
    if not profile:
        return None
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        properties = cast("Any", source.profile)  # Pillow's stubs take it for the file
        if properties.xcolor_space.strip() != "RGB":
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        name = (properties.profile_description or "without a name").strip()
    except (ImageCms.PyCMSError, OSError):
        return None
    found = IccConversion(name, transform)
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    levels = np.abs(found.converted(colours).astype(int) - colours).max()
    return found if levels > _SAME_LEVELS else None
