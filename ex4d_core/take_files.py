"""Names of the files of a take, as the backend announces them and the client keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings

# The request that made a take: the first file that a take delivers, by which its folder is recognised.
REQUEST_FILE = "request.json"

# What every finished take brings along besides its frames.
TAKE_FILES = ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", REQUEST_FILE)

# Where a take shows what other frames of the clip saw; only takes with the clip's memory have it.
REMEMBERED_FILE = "remembered.mp4"
ALL_TAKE_FILES = (*TAKE_FILES, REMEMBERED_FILE)

# The newest small image of a take that is still being denoised.
ESTIMATE_FILE = "estimate.png"


def take_files(remembers: bool) -> tuple[str, ...]:
    """What a take has besides its frames, with the clip's memory or without."""
    return ALL_TAKE_FILES if remembers else TAKE_FILES


def deep_files(output: OutputSettings, frames: int) -> tuple[str, ...]:
    """What a take of so many frames has in more than 8 bits: an image of each frame, or a movie."""
    return output.files("take", frames)


def deep_files_of(request: Mapping[str, Any], frames: int) -> tuple[str, ...]:
    """As `deep_files`, by a request as it is stored; none of one that says nothing sensible."""
    try:
        return deep_files(OutputSettings.from_wire(request.get("output", {})), frames)
    except RequestError:
        return ()


def frame_file_name(index: int) -> str:
    """File name of a take's frame, counted from 0."""
    return f"frame_{index:05d}.png"
