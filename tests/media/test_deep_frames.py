"""Footage of more than 8 bits is read with all of them, in the colours of its own files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest

from ex4d.media import MediaError, deep_source, read_deep_frames, read_frames, write_png
from ex4d.media.colour_management import ACESCG, LINEAR_SRGB, PQ, SRGB
from ex4d.media.deep_source import chromaticities_of

HEIGHT, WIDTH = 32, 48
# Every pixel another value of 16 bits.
CODES = (np.arange(HEIGHT * WIDTH * 3, dtype=np.int64) * 65535 // (HEIGHT * WIDTH * 3 - 1)).astype(np.uint16)
CODES = CODES.reshape(HEIGHT, WIDTH, 3)


def coded(bits: int) -> np.ndarray:
    """`CODES` in so many bits, rounded."""
    return np.rint(CODES / 65535 * (2**bits - 1)).astype(np.uint16)


def frame_of(pixel_format: str) -> av.VideoFrame:
    """`CODES` as a frame of an RGB format."""
    bits = 16 if "48" in pixel_format else int(pixel_format[4:6])
    native = pixel_format.replace("be", "le")
    return av.VideoFrame.from_ndarray(coded(bits), format=native).reformat(format=pixel_format)


def write_movie(path: Path, frame: av.VideoFrame, **tags: int) -> None:
    """A movie of one frame, lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, frame.format.name
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)


def write_image(path: Path, codec: str, pixel_format: str) -> None:
    """`CODES` by one of FFmpeg's encoders."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = WIDTH, HEIGHT, pixel_format, Fraction(1, 24)
    path.write_bytes(b"".join(bytes(packet) for packet in (*encoder.encode(frame_of(pixel_format)), *encoder.encode())))


def only_frame(path: Path) -> np.ndarray:
    (frame,) = read_deep_frames(path)
    return frame


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.png", "", ""), ("a.tif", "tiff", "rgb48le"), ("a.dpx", "dpx", "rgb48be")],
)
def test_images_of_16_bits_keep_every_value(tmp_path, name, codec, pixel_format) -> None:
    file = tmp_path / name
    if codec:
        write_image(file, codec, pixel_format)
    else:
        write_png(file, CODES)
    frame = only_frame(tmp_path)
    assert frame.dtype == np.float32 and np.array_equal(np.rint(frame * 65535), CODES)
    found = deep_source(tmp_path)
    assert (found.bits, found.space) == (16, SRGB)


@pytest.mark.parametrize("pixel_format", ["gbrp10be", "gbrp12be"])
def test_dpx_of_10_and_12_bits_keeps_every_value(tmp_path, pixel_format) -> None:
    write_image(tmp_path / "a.dpx", "dpx", pixel_format)
    bits = int(pixel_format[4:6])
    frame = only_frame(tmp_path)
    assert deep_source(tmp_path).bits == bits
    assert np.array_equal(np.rint(frame * (2**bits - 1)), coded(bits)) and frame.max() == 1.0


def yuv_frame(bits: int, full_range: bool) -> av.VideoFrame:
    """A grey ramp from black to white in YUV, and its chroma, neutral."""
    peak = 2**bits - 1
    low, high = (0, peak) if full_range else (16 << (bits - 8), 235 << (bits - 8))
    luma = np.linspace(low, high, WIDTH).round().astype(np.uint16)[None].repeat(HEIGHT, axis=0)
    neutral = np.full((HEIGHT, WIDTH), 1 << (bits - 1), np.uint16)
    frame = av.VideoFrame(WIDTH, HEIGHT, f"yuv444p{bits}le")
    for plane, values in zip(frame.planes, (luma, neutral, neutral), strict=True):
        padded = np.zeros((HEIGHT, plane.line_size // 2), np.uint16)
        padded[:, :WIDTH] = values
        plane.update(padded.tobytes())
    frame.color_range = 2 if full_range else 1
    return frame


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_video_of_10_and_12_bits_has_black_white_and_all_steps_between(tmp_path, bits, full_range) -> None:
    write_movie(tmp_path / "a.mkv", yuv_frame(bits, full_range), colorspace=1, color_range=2 if full_range else 1)
    frame = only_frame(tmp_path / "a.mkv")
    assert deep_source(tmp_path / "a.mkv").bits == bits
    assert (float(frame[0, 0].max()), float(frame[0, -1].min())) == (0.0, 1.0)
    step = 1 / (2**bits - 1) if full_range else 1 / (219 << (bits - 8))
    assert np.abs(frame - np.linspace(0, 1, WIDTH)[None, :, None]).max() <= 0.51 * step
    eight = next(read_frames(tmp_path / "a.mkv")).astype(np.float32) / 255
    assert np.abs(frame - eight).max() < 2 / 255


def test_hdr_is_not_tone_mapped_and_is_named(tmp_path) -> None:
    write_movie(tmp_path / "a.mkv", frame_of("gbrp10le"), color_primaries=9, color_trc=16)
    assert deep_source(tmp_path / "a.mkv").space == PQ
    assert np.array_equal(np.rint(only_frame(tmp_path / "a.mkv") * 1023), coded(10))


def write_exr(path: Path, picture: np.ndarray, **header: object) -> None:
    kind = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    with OpenEXR.File(kind, {"RGB": picture}) as file:
        file.write(str(path))


@pytest.mark.parametrize("space", [LINEAR_SRGB, ACESCG])
def test_an_exr_is_read_as_it_is_in_its_own_primaries(tmp_path, space) -> None:
    picture = np.logspace(-14, 15.99, HEIGHT * WIDTH * 3, base=2).reshape(HEIGHT, WIDTH, 3).astype(np.float16)
    picture[0, 0] = (-0.25, np.inf, np.nan)
    write_exr(tmp_path / "a.exr", picture, chromaticities=chromaticities_of(space))
    frame = only_frame(tmp_path)
    assert frame[0, 0].tolist() == [-0.25, 65504.0, 0.0]
    assert np.array_equal(frame.astype(np.float16).ravel()[3:], picture.ravel()[3:])
    assert (deep_source(tmp_path).bits, deep_source(tmp_path).space) == (16, space)


def test_unknown_primaries_have_no_name(tmp_path) -> None:
    write_exr(
        tmp_path / "a.exr", np.zeros((4, 4, 3), np.float16), chromaticities=(0.7, 0.3, 0.2, 0.7, 0.1, 0.1, 0.3, 0.3)
    )
    assert deep_source(tmp_path).space == "" and "chromaticities" in deep_source(tmp_path).told_by


def test_a_damaged_image_is_told_by_its_name(tmp_path) -> None:
    (tmp_path / "a.dpx").write_bytes(b"SDPX" + bytes(500))
    with pytest.raises(MediaError, match=r"a\.dpx"):
        only_frame(tmp_path)
