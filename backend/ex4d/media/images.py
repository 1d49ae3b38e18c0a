"""Reads single images of footage as upright sRGB: PNG, JPEG, TIFF and others by FFmpeg, EXR in linear light.

Pillow tells orientation and ICC profile, which FFmpeg does not tell safely, and decodes TIFF with JPEG compression.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ex4d.media import pixels
from ex4d.media.colour import colour_note, colour_of, require_known_matrix
from ex4d.media.exr_picture import read_exr_light, read_exr_picture
from ex4d.media.icc import IccConversion, conversion_of
from ex4d.media.media_errors import MediaError, require_room_for_image, unreadable
from ex4d.media.png import png_frame
from ex4d.media.scan import DamagedVideoError, decoded_frames, open_video

_ORIENTATION_TAG, _COMPRESSION_TAG = 0x0112, 0x0103
_TIFF_JPEG = (6, 7)  # FFmpeg decodes neither, and returns black

_PILLOW_ERRORS = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ReadImage:
    """An image (H, W, 3) uint8 sRGB, upright, and what was done to it, for the artist."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Properties:
    """What Pillow finds in an image file without decoding it."""

    orientation: pixels.Orientation = pixels.UPRIGHT
    profile: IccConversion | None = None
    tiff_compression: int = 1
    may_be_transparent: bool = True  # decoders give palettes, CMYK and WebP an alpha channel that files need not have


class ImageReader:
    """Reads the images of one sequence, and keeps what their conversion needs from one to the next."""

    def __init__(self) -> None:
        """Start without any."""
        self._converters: dict[tuple[pixels.Orientation, IccConversion | None], pixels.FrameConverter] = {}

    def read(self, file: Path) -> ReadImage:
        """Read an image.

        Raises:
            MediaError: not an image, truncated, damaged, animated, or with a colour matrix that cannot be converted.
            MemoryRoomError: it does not fit into memory.
        """
        if file.suffix.lower() == ".exr":
            picture, notes = read_exr_picture(file)
            return ReadImage(picture, notes)
        frame, converter, notes = self._decoded(file)
        return ReadImage(converter.rgb(frame), notes)

    def read_deep(self, file: Path) -> np.ndarray:
        """Read an image as (H, W, 3) float32, in the colours that the file encodes; errors as `read`.

        Integers are in [0, 1]; an EXR has its own values, infinite ones as the largest of half floats.
        """
        if file.suffix.lower() == ".exr":
            return read_exr_light(file)
        frame, converter, _ = self._decoded(file)
        return converter.deep(frame)

    def _decoded(self, file: Path) -> tuple[av.VideoFrame, pixels.FrameConverter, tuple[str, ...]]:
        """A decoded image, what converts it, and notes for the artist."""
        suffix = file.suffix.lower()
        try:
            data = file.read_bytes()
        except OSError as error:
            raise unreadable(file, error) from error
        found = _properties(data)
        key = (found.orientation, found.profile)
        converter = self._converters.setdefault(key, pixels.FrameConverter(found.orientation, profile=found.profile))
        notes = (found.profile.note,) if found.profile else ()
        if found.tiff_compression in _TIFF_JPEG:
            return _by_pillow(data, file), converter, notes
        if suffix in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-65536:]:
            raise MediaError(f"{file}: truncated: the image's end is missing. Copy or render it again.")
        frame = png_frame(data, file) if suffix == ".png" else _by_ffmpeg(file)
        space = colour_of(frame)
        if pixels.is_yuv(frame.format):
            require_known_matrix(space, file)
        if pixels.has_alpha(frame.format) and found.may_be_transparent:
            notes = ("transparency is composited over black", *notes)
        if not found.profile and (note := colour_note(space)):
            notes = (*notes, note)
        return frame, converter, notes


def _properties(data: bytes) -> _Properties:
    with suppress(*_PILLOW_ERRORS), Image.open(io.BytesIO(data)) as image:
        number = image.getexif().get(_ORIENTATION_TAG, 1)
        known = isinstance(number, int) and 1 <= number <= len(pixels.EXIF_ORIENTATIONS)
        return _Properties(
            pixels.EXIF_ORIENTATIONS[number - 1] if known else pixels.UPRIGHT,
            conversion_of(image.info.get("icc_profile") or b""),
            image.tag_v2.get(_COMPRESSION_TAG, 1) if isinstance(image, TiffImagePlugin.TiffImageFile) else 1,
            image.has_transparency_data,
        )
    return _Properties()  # the decoder reports what is wrong with the file


def _by_pillow(data: bytes, file: Path) -> av.VideoFrame:
    try:
        with Image.open(io.BytesIO(data)) as image:
            require_room_for_image(image.width, image.height, file)
            array = np.array(image.convert("RGB"))
    except _PILLOW_ERRORS as error:
        raise MediaError(f"{file}: damaged TIFF ({error}). Write or copy it again.") from error
    return av.VideoFrame.from_ndarray(array, format="rgb24")


def _by_ffmpeg(file: Path) -> av.VideoFrame:
    with open_video(file) as (container, stream), suppress(DamagedVideoError):
        for frame in decoded_frames(container, stream):
            return frame
    raise MediaError(f"{file}: not a readable image. Copy or render it again.")
