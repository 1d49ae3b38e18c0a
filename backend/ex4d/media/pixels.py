"""Converts decoded frames to upright sRGB arrays and back: colour matrix, range, bit depth, alpha and orientation.

The only module that knows swscale's flags and colour codes; footage, PNG and video writing all use it.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

# swscale's own numbers (libswscale/swscale.h): PyAV accepts them, but its releases for Python 3.10 name only some.
_BILINEAR, _AREA = 0x2, 0x20
_FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE_ROUNDING = 0x2000, 0x4000, 0x40000
# Measured on a 512x512 video frame against the frame itself: full chroma interpolation with accurate rounding gives
# 46.6 dB after 4:2:0, swscale's fast path 45.0 dB and errors in saturated colours. It costs 0.8 ms more.
_READ_FLAGS = _BILINEAR | _ACCURATE_ROUNDING | _FULL_CHROMA_OUT
_WRITE_FLAGS = _AREA | _ACCURATE_ROUNDING | _FULL_CHROMA_IN

# Matrix codes of ITU-T H.273 that swscale knows: BT.709, FCC, BT.601 (625 and 525 lines), SMPTE 240M, BT.2020.
_KNOWN_MATRICES = (1, 4, 5, 6, 7, 9)

BT709 = 1  # the same code for matrix, primaries and transfer in ITU-T H.273
LIMITED_RANGE = 1

Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)
_TURNS: tuple[Orientation, ...] = (UPRIGHT, (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))  # by quarters, clockwise


class FrameConverter:
    """Converts decoded frames of one stream to (H, W, 3) uint8 sRGB, full range, upright.

    Untagged YUV is interpreted as players do: BT.709 from 720p up, BT.601 below. Alpha is straight and is composited
    over black. Transfer curves are not changed: HDR footage (PQ, HLG) comes out flat.
    """

    def __init__(self, orientation: Orientation = UPRIGHT) -> None:
        """Prepare for frames that are stored in an orientation."""
        self._orientation = orientation
        self._reformatter = VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8, contiguous, of one decoded frame."""
        with_alpha = has_alpha(frame.format)
        converted = self._reformatter.reformat(
            frame,
            format="rgba" if with_alpha else "rgb24",
            src_colorspace=_assumed_matrix(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation=_READ_FLAGS,
            threads=1,
        )
        pixels = converted.to_ndarray()
        if with_alpha:
            alpha = pixels[..., 3:].astype(np.uint16)
            pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(turned(pixels, self._orientation))


class YuvConverter:
    """Converts (H, W, 3) uint8 sRGB to limited-range BT.709 frames in one YUV pixel format."""

    def __init__(self, pixel_format: str) -> None:
        """Prepare for a pixel format, such as yuv420p."""
        self._pixel_format = pixel_format
        self._reformatter = VideoReformatter()

    def frame(self, rgb: np.ndarray) -> av.VideoFrame:
        """The frame of an image."""
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format=self._pixel_format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_WRITE_FLAGS,
            threads=1,
        )


def resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 copy of an image, averaged over areas when it gets smaller."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return frame.reformat(width=width, height=height, interpolation=_AREA, threads=1).to_ndarray()


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a colour image, a gray image (H, W) uint8 or a mask (H, W) bool.

    Raises:
        ValueError: any other shape or type.
    """
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype == np.uint8 and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"invalid image {image.shape} {image.dtype}: expected (H, W, 3) uint8, (H, W) uint8 or (H, W) bool"
        )
    return np.ascontiguousarray(image)


def has_alpha(pixel_format: av.VideoFormat) -> bool:
    """Whether a pixel format may be transparent (palettes may be)."""
    return pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)


def orientation(frame: av.VideoFrame) -> Orientation:
    """The quarter-turn and mirroring that a player applies before showing the frame, as the matrix (a, b, c, d).

    A stored pixel (p, q), x right and y down, is shown at (a p + c q, b p + d q) up to a shift: the layout of the
    display matrix in ISO/IEC 14496-12, 8.3.2, rounded to the nearest quarter-turn.
    """
    try:
        attached: list[Any] = list(frame.side_data)  # PyAV's stubs say that iteration gives names
    except ValueError:
        # PyAV does not know the side data that FFmpeg attaches to images with EXIF, and then returns none at all. Its
        # `rotation` lacks mirroring, which cameras do not use.
        return _TURNS[round(-frame.rotation / 90) % 4]
    for side_data in attached:
        if side_data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return (0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0)
            return (1 if a >= 0 else -1, 0, 0, 1 if d >= 0 else -1)
    return UPRIGHT


def turned(pixels: np.ndarray, turn: Orientation) -> np.ndarray:
    """A view of (H, W, ...) pixels as a player shows them."""
    a, b, c, d = turn
    if b:
        pixels = pixels.swapaxes(0, 1)
        x_sign, y_sign = c, b
    else:
        x_sign, y_sign = a, d
    return pixels[::y_sign, ::x_sign]


def _assumed_matrix(frame: av.VideoFrame) -> Colorspace | None:
    pixel_format = frame.format
    is_yuv = not pixel_format.is_rgb and not pixel_format.has_palette and len(pixel_format.components) >= 3
    if not is_yuv or frame.colorspace in _KNOWN_MATRICES:
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
