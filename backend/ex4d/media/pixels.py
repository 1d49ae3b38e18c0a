"""Converts decoded frames to upright sRGB arrays and back: colour matrix, range, bit depth, alpha and orientation.

The only module that knows swscale's flags; footage, PNG and video writing all use it. `colour.py` has the colour codes.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ex4d.media.colour import BT2020, KNOWN_MATRICES, YCGCO, ColourSpace, colour_of, conversion_table
from ex4d.media.deep_pixels import deep_from_rgb, deep_from_yuv
from ex4d.media.filters import ColourTable
from ex4d.media.icc import IccConversion

# swscale's own numbers (libswscale/swscale.h): PyAV accepts them, but its releases for Python 3.10 name only some.
_BILINEAR, _AREA = 0x2, 0x20
_FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE_ROUNDING = 0x2000, 0x4000, 0x40000
# Measured on a 512x512 video frame against the frame itself: full chroma interpolation with accurate rounding gives
# 46.6 dB after 4:2:0, swscale's fast path 45.0 dB and errors in saturated colours. It costs 0.8 ms more.
_READ_FLAGS = _BILINEAR | _ACCURATE_ROUNDING | _FULL_CHROMA_OUT
WRITE_FLAGS = _AREA | _ACCURATE_ROUNDING | _FULL_CHROMA_IN

BT709 = 1  # the same code for matrix, primaries and transfer in ITU-T H.273
LIMITED_RANGE = 1

Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)
# By EXIF's number, 1 to 8.
EXIF_ORIENTATIONS: tuple[Orientation, ...] = (
    UPRIGHT,
    (-1, 0, 0, 1),
    (-1, 0, 0, -1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
    (0, -1, 1, 0),
)
_UNSAFE_SIDE_DATA = ("png", "apng")
_TURNS: tuple[Orientation, ...] = (UPRIGHT, (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))  # by quarters, clockwise


class FrameConverter:
    """Converts decoded frames of one stream to (H, W, 3) uint8 sRGB, full range, upright.

    Untagged YUV is interpreted as players do: BT.709 from 720p up, BT.601 below. Alpha is straight and is composited
    over black. HDR is tone-mapped and wide gamuts are converted; see `colour.py`.
    """

    def __init__(
        self,
        orientation: Orientation = UPRIGHT,
        declared: ColourSpace | None = None,
        profile: IccConversion | None = None,
    ) -> None:
        """Prepare for frames that are stored in an orientation.

        Args:
            orientation: see `orientation`.
            declared: the colour space that the container declares, for frames that say nothing.
            profile: the conversion of an ICC profile, which goes before the frames' own tags.
        """
        self._orientation = orientation
        self._declared = declared
        self._profile = profile
        self._reformatter = VideoReformatter()
        self._tables: dict[ColourSpace, ColourTable | None] = {}

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8, contiguous, of one decoded frame."""
        space = colour_of(frame, self._declared)
        if space not in self._tables:
            table = None if self._profile else conversion_table(space)
            self._tables[space] = None if table is None else ColourTable(table)
        table = self._tables[space]
        if space.matrix == YCGCO and is_yuv(frame.format):
            pixels, with_alpha = self._from_ycgco(frame, space), False
            if table is not None:
                deep = np.ascontiguousarray(pixels.astype(np.uint16) * 257)
                pixels = table.applied(_timed(av.VideoFrame.from_ndarray(deep, format="rgb48le"))).to_ndarray()
        else:
            with_alpha = has_alpha(frame.format)
            # Planar: swscale's packed 16-bit formats come out in false colours with these flags.
            names = ("rgba", "rgb24") if table is None else ("gbrap16le", "gbrp16le")
            converted = self._reformatter.reformat(
                frame,
                format=names[0] if with_alpha else names[1],
                src_colorspace=_assumed_matrix(frame, space),
                src_color_range=_declared_range(frame, space),
                dst_color_range=ColorRange.JPEG,
                interpolation=_READ_FLAGS,
                threads=1,
            )
            pixels = (converted if table is None else table.applied(_timed(converted))).to_ndarray()
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        alpha = pixels[..., 3:].astype(np.uint16) if with_alpha else None
        pixels = pixels[..., :3]
        if self._profile:
            pixels = self._profile.converted(np.ascontiguousarray(pixels))
        if alpha is not None:
            pixels = ((pixels * alpha + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(turned(pixels, self._orientation))

    def deep(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) float32, contiguous: RGB as the frame encodes it, full range, white at 1.

        Neither tone-mapped nor converted to other primaries; alpha is composited over black.
        """
        space = colour_of(frame, self._declared)
        if is_yuv(frame.format) and space.matrix == YCGCO:
            pixels, alpha = self._from_ycgco(frame, space).astype(np.float32) / 255, None
        elif max(component.bits for component in frame.format.components) <= 8:
            pixels, alpha = self._rgb8(frame, space)
        elif is_yuv(frame.format):
            matrix = _assumed_matrix(frame, space) or int(frame.colorspace)
            pixels, alpha = deep_from_yuv(frame, self._reformatter, _READ_FLAGS, matrix, bool(space.full_range))
        else:
            pixels, alpha = deep_from_rgb(frame)
        if alpha is not None:
            pixels = pixels * alpha[..., None]
        return np.ascontiguousarray(turned(pixels, self._orientation))

    def _rgb8(self, frame: av.VideoFrame, space: ColourSpace) -> tuple[np.ndarray, np.ndarray | None]:
        """RGB (H, W, 3) float32 in [0, 1] and straight alpha (H, W) or None of a frame of 8 bits."""
        with_alpha = has_alpha(frame.format)
        converted = self._reformatter.reformat(
            frame,
            format="rgba" if with_alpha else "rgb24",
            src_colorspace=_assumed_matrix(frame, space),
            src_color_range=_declared_range(frame, space),
            dst_color_range=ColorRange.JPEG,
            interpolation=_READ_FLAGS,
            threads=1,
        )
        values = converted.to_ndarray().astype(np.float32) / 255
        return values[..., :3], values[..., 3] if with_alpha else None

    def _from_ycgco(self, frame: av.VideoFrame, space: ColourSpace) -> np.ndarray:
        """(H, W, 3) uint8 of YCgCo (ITU-T H.273, equations 51 to 58), which swscale does not know."""
        planes = self._reformatter.reformat(frame, format="yuv444p", interpolation=_READ_FLAGS, threads=1)
        luma, green, orange = planes.to_ndarray().astype(np.float32)
        if space.full_range:
            luma, green, orange = luma, green - 128.0, orange - 128.0
        else:
            luma, green, orange = ((luma - 16.0) / 219, (green - 128.0) / 224, (orange - 128.0) / 224)
            luma, green, orange = luma * 255, green * 255, orange * 255
        rgb = np.stack([luma - green + orange, luma + green, luma - green - orange], axis=-1)
        return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)


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
            interpolation=WRITE_FLAGS,
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


def orientation(frame: av.VideoFrame, codec: str = "") -> Orientation:
    """The quarter-turn and mirroring that a player applies before showing the frame, as the matrix (a, b, c, d).

    A stored pixel (p, q), x right and y down, is shown at (a p + c q, b p + d q) up to a shift: the layout of the
    display matrix in ISO/IEC 14496-12, 8.3.2, rounded to the nearest quarter-turn.

    Args:
        frame: decoded.
        codec: its name. The side data of PNGs is never looked at: with an ICC profile in it, PyAV 17.1 to 18.1
            frees the profile's name twice. Its `rotation` is safe, but lacks mirroring.
    """
    if codec in _UNSAFE_SIDE_DATA:
        return _TURNS[round(-frame.rotation / 90) % 4]
    try:
        attached: list[Any] = list(frame.side_data)  # PyAV's stubs say that iteration gives names
    except ValueError:  # a kind of side data that PyAV does not know, and it then returns none at all
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


def is_yuv(pixel_format: av.VideoFormat) -> bool:
    """Whether a pixel format has luma and two differences of colour."""
    return not pixel_format.is_rgb and not pixel_format.has_palette and len(pixel_format.components) >= 3


def _assumed_matrix(frame: av.VideoFrame, space: ColourSpace) -> Colorspace | int | None:
    """The matrix of a frame that does not tell one; swscale's numbers are those of H.273."""
    if not is_yuv(frame.format) or frame.colorspace in KNOWN_MATRICES:
        return None
    if space.matrix in KNOWN_MATRICES:
        return space.matrix
    if space.is_hdr or space.primaries == BT2020:
        return BT2020
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def _declared_range(frame: av.VideoFrame, space: ColourSpace) -> ColorRange | None:
    """The range of a frame that does not tell it, where its container does."""
    if int(frame.color_range) or space.full_range is None or not is_yuv(frame.format):
        return None
    return ColorRange.JPEG if space.full_range else ColorRange.MPEG


def _timed(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame, with the time base that filters require."""
    frame.pts, frame.time_base = 0, Fraction(1, 1000)
    return frame
