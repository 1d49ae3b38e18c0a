"""Encodes JPEGs in memory, for views that are sent to Blender."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
from av.codec import CodecContext
from av.video.reformatter import ColorRange, Colorspace

# mjpeg's quantiser scale: 2 is the best, 31 the worst; 3 keeps flat hole colours flat.
_QUANTISER = 3
# Slices of an image are encoded in parallel: the same bytes, sooner.
_THREADS = 4


def jpeg_bytes(image: np.ndarray) -> bytes:
    """A JPEG (4:4:4, high quality) of an (H, W, 3) uint8 sRGB image."""
    height, width = image.shape[:2]
    encoder = CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj444p"
    encoder.time_base = Fraction(1, 25)
    threads = min(_THREADS, os.cpu_count() or 1)
    encoder.thread_count, encoder.thread_type = threads, "SLICE"
    encoder.options = {"qmin": str(_QUANTISER), "qmax": str(_QUANTISER)}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuvj444p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=threads
    )
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
