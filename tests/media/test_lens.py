"""The lens that footage states: EXIF of images, the keys that phones write into movies; else nothing."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from ex4d.media import VideoWriter, lens_of, probe, read_frames, write_png
from ex4d.media.lens import exif_of

DIAGONAL = math.hypot(96, 64)


def exif(tags: dict[int, tuple[int, float]], order: str = "<") -> bytes:
    """A TIFF block: one directory, which points at the EXIF directory with `tags` (type, value) in it."""
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    first = struct.pack(order + "HHHII", 1, 0x8769, 4, 1, 26) + b"\0\0\0\0"
    entries, extra = b"", b""
    at = 26 + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in tags.items():
        if kind == 3:
            data = struct.pack(order + "HH", int(value), 0)
        elif kind == 4:
            data = struct.pack(order + "I", int(value))
        else:
            data = struct.pack(order + "I", at + len(extra))
            extra += struct.pack(order + "II", round(1000 * value), 1000)
        entries += struct.pack(order + "HHI", tag, kind, 1) + data
    return header + first + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0" + extra


def as_jpeg_head(block: bytes) -> bytes:
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block


@pytest.fixture
def sequence(tmp_path):
    """Writes PNGs, the first with an eXIf chunk."""

    def write(tags: dict[int, tuple[int, float]]) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        for index in range(2):
            write_png(folder / f"{index}.png", np.zeros((64, 96, 3), np.uint8))
        file = folder / "0.png"
        data, block = file.read_bytes(), b"eXIf" + exif(tags)
        chunk = struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
        file.write_bytes(data[:33] + chunk + data[33:])
        return folder

    return write


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wrap", [as_jpeg_head, lambda block: block])
def test_exif_in_both_byte_orders(order, wrap):
    tags = exif_of(wrap(exif({0xA405: (3, 28), 0x920A: (5, 4.25)}, order)))
    assert (tags[0xA405], tags[0x920A]) == (28, 4.25)


@pytest.mark.parametrize("cut", [4, 12, 30, 40, 60])
def test_damaged_exif_is_as_none(cut):
    exif_of(as_jpeg_head(exif({0xA405: (3, 28), 0x920A: (5, 4.25)}))[:cut])


def test_35_mm_equivalent_compares_diagonals(sequence):
    lens = lens_of(probe(sequence({0xA405: (3, 26)})))
    assert lens.focal_px == pytest.approx(DIAGONAL * 26 / math.hypot(36, 24))
    assert lens.source == "0.png: 26 mm (35 mm equivalent)"


def test_a_focal_length_and_a_sensor(sequence):
    """96 pixels at 10 a millimetre: a sensor 9.6 mm wide."""
    lens = lens_of(probe(sequence({0x920A: (5, 12), 0xA002: (4, 96), 0xA20E: (5, 100), 0xA210: (3, 3)})))
    assert lens.focal_px == pytest.approx(120)


@pytest.mark.parametrize("tags", [{0x920A: (5, 12)}, {0xA405: (3, 0)}, {0xA405: (3, 60000)}])
def test_what_does_not_suffice_or_makes_no_sense_is_nothing(sequence, tags):
    assert lens_of(probe(sequence(tags))) is None


def test_the_key_that_phones_write(tmp_path):
    key = {"com.apple.quicktime.camera.focal_length.35mm_equivalent": "26"}
    for name, metadata in (("phone", key), ("plain", {})):
        with VideoWriter(tmp_path / f"{name}.mp4", 96, 64, 24, metadata=metadata) as movie:
            movie.write(np.zeros((64, 96, 3), np.uint8))
    assert lens_of(probe(tmp_path / "phone.mp4")).focal_px == pytest.approx(DIAGONAL * 26 / math.hypot(36, 24))
    assert lens_of(probe(tmp_path / "plain.mp4")) is None


@pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_photos_with_exif_open_upright(tmp_path, orientation, degrees):
    """The left half is bright as stored; a player turns the image as EXIF says."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = 200
    with av.open(str(tmp_path / "plain.jpg"), "w", format="image2") as container:
        stream = container.add_stream("mjpeg")
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "plain.jpg").read_bytes()
    block = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "photo_1.jpg").write_bytes(as_jpeg_head(block) + data[2:])
    (shown,) = read_frames(folder)
    assert np.abs(shown.astype(int) - np.rot90(image, -degrees // 90)).mean() < 5
