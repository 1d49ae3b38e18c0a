"""Real video files for the media tests, written with the codecs that artists' footage comes in."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest


def _counting_image(index: int, width: int, height: int) -> np.ndarray:
    """A image (H, W, 3) uint8: top left quarter red, and its number in binary as six stripes in the lower half."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    for bit in range(6):
        image[height // 2 :, bit * width // 6 : (bit + 1) * width // 6] = 255 * (index >> bit & 1)
    return image


def _number_of(image: np.ndarray) -> int:
    """The number that counting images have, read back."""
    height, width = image.shape[:2]
    return sum(1 << bit for bit in range(6) if image[3 * height // 4, (2 * bit + 1) * width // 12].mean() > 127)


@pytest.fixture
def counting_image():
    """A image by number and size."""
    return _counting_image


@pytest.fixture
def number_of():
    """The number of a counting image, also after compression."""
    return _number_of


@pytest.fixture
def make_video(tmp_path):
    """Writes a video of counting images (or of the given ones) and returns its path."""

    def make(
        name,
        images=12,
        size=(64, 48),
        codec="libx264",
        pixel_format="yuv420p",
        rate=25,
        times=None,
        time_base=None,
        options=None,
        rotation=0,
        tags=None,
        matrix="ITU601",
        container_options=None,
    ):
        width, height = size
        if isinstance(images, int):
            images = [_counting_image(index, width, height) for index in range(images)]
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = pixel_format
            for tag, value in (tags or {}).items():
                setattr(stream.codec_context, tag, value)
            if time_base:
                stream.codec_context.time_base = time_base
            if rotation:
                stream.set_display_rotation(rotation)
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24")
                frame = frame.reformat(format=pixel_format, dst_colorspace=matrix, dst_color_range="MPEG")
                frame.pts = times[index] if times else index
                frame.time_base = time_base or Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make
