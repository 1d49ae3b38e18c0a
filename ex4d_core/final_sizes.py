"""Sizes of a final take: the windows it is generated in, and the image size it is generated at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ex4d_core.wan_settings import MAX_WINDOW, WanSettings

# Pixels whose sides differ by less are taken as square: cameras that were solved or estimated have such focal lengths.
_SQUARE = 0.02


def round_up_frames(frames: int) -> int:
    """Return the smallest 4n + 1 that is not less: what the VAE takes."""
    return -(-(frames - 1) // 4) * 4 + 1


def window_count(frames: int, window: int, overlap: int) -> int:
    """Number of windows that a shot of ``frames`` frames is generated in.

    Args:
        window: frames generated at once.
        overlap: frames of the previous window that each further window starts from.
    """
    return 1 + max(0, -(-(frames - window) // (window - overlap)))


def window_lengths(frames: int, settings: WanSettings) -> list[int]:
    """Frames of each window of a shot, those that it starts from included; all but the last are 4n + 1.

    With conditioning "known" the windows are about equally long: 50 frames are not 49 + 13.
    """
    window, overlap = settings.window, settings.overlap
    count = window_count(frames, window, overlap)
    return list(
        _balanced(frames, count, overlap) if settings.conditioning == "known" else _full(frames, window, overlap)
    )


def _full(frames: int, window: int, overlap: int) -> Iterator[int]:
    done = 0
    while not done or done < frames:
        start = max(0, done - overlap)
        yield min(window, frames - start)
        done = start + window


def _balanced(frames: int, count: int, overlap: int) -> Iterator[int]:
    left = frames
    for windows in range(count, 0, -1):
        equal = round_up_frames(-(-(left + (windows - 1) * overlap) // windows))
        yield min(equal, left)
        left -= equal - overlap
        if left <= overlap:
            return


def with_lead_in(settings: WanSettings, frames: int, lead_in: int) -> WanSettings:
    """The settings of a shot with hidden frames before it: its window is longer, where that saves a further one."""
    longer = min(MAX_WINDOW, settings.window + lead_in)
    if settings.window < longer and frames <= settings.window and frames + lead_in <= longer:
        return replace(settings, window=longer)
    return settings


def lead_in_cost(settings: WanSettings, frames: int, lead_in: int) -> float:
    """How much more is generated because of a lead-in, as a share of the shot without it: 0.15 is 15 % more."""
    without, longer = settings, with_lead_in(settings, frames, lead_in)
    pairs = ((frames, without), (frames + lead_in, longer))
    plain, led = (sum(round_up_frames(length) // 4 + 1 for length in window_lengths(*pair)) for pair in pairs)
    return led / plain - 1


def generated_frames(frames: int, stride: int) -> int:
    """Number of frames of a shot that are generated: every ``stride``-th, and the last one."""
    return 1 + -(-(frames - 1) // stride)


def working_size(width: int, height: int, max_pixels: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """Width and height at which images are generated: at most ``max_pixels`` pixels, with the same aspect ratio.

    Args:
        max_pixels: 0 for no limit.
        pixel_aspect: width of a pixel by its height; where it is not 1, the images that are generated have square
            pixels and as many of them.
    """
    shown_width, shown_height = width * math.sqrt(pixel_aspect), height / math.sqrt(pixel_aspect)
    scale = 1.0
    if max_pixels and width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
    return max(1, round(shown_width * scale)), max(1, round(shown_height * scale))


def generation_size(settings: WanSettings, width: int, height: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """`working_size` of a take's frames with an engine's settings."""
    aspect = pixel_aspect if settings.conditioning == "known" and abs(pixel_aspect - 1) >= _SQUARE else 1.0
    return working_size(width, height, settings.generated_pixels, aspect)
