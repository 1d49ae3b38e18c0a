"""PNGs: every kind of image comes back exactly, texts too, and a damaged file is never half an image."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest

from ex4d.media import MediaError, contact_sheet, read_png, read_png_metadata, write_png

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "image",
    [
        RANDOM.integers(0, 256, (37, 51, 3), dtype=np.uint8),
        RANDOM.integers(0, 256, (37, 51), dtype=np.uint8),
        RANDOM.integers(0, 65536, (37, 51), dtype=np.uint16),
        np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::-1],
        np.zeros((1, 1, 3), np.uint8),
    ],
    ids=["colour", "gray", "16 bit", "not contiguous", "one pixel"],
)
def test_round_trip(tmp_path, image):
    write_png(tmp_path / "a.png", image)
    back = read_png(tmp_path / "a.png")
    assert (back.dtype, back.shape) == (image.dtype, image.shape)
    assert np.array_equal(back, image)
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_mask_becomes_black_and_white(tmp_path):
    mask = RANDOM.random((8, 9)) > 0.5
    write_png(tmp_path / "mask.png", mask)
    assert np.array_equal(read_png(tmp_path / "mask.png"), np.where(mask, 255, 0))


def test_transparent_images_are_composited_over_black(tmp_path):
    image = np.full((8, 8, 4), (200, 100, 50, 128), np.uint8)
    with av.open(str(tmp_path / "a.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 8
        stream.pix_fmt = "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgba")))
        container.mux(stream.encode())
    assert np.abs(read_png(tmp_path / "a.png").astype(int) - (100, 50, 25)).max() <= 1


def test_texts(tmp_path):
    texts = {"ex4d.engine": "preview", "Comment": "Blüte", "Title": "花 in the wind", "Empty": ""}
    write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), texts)
    assert read_png_metadata(tmp_path / "a.png") == texts
    assert read_png(tmp_path / "a.png").shape == (4, 4, 3)


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(MediaError, match=r"a.png: truncated PNG"):
        read_png(path)
    path.write_bytes(whole[:2000] + b"\0\0\0\0" + whole[2004:])
    with pytest.raises(MediaError, match=r"a.png: damaged PNG"):
        read_png(path)
    path.write_bytes(b"GIF89a" + whole)
    with pytest.raises(MediaError, match=r"a.png: not a PNG"):
        read_png(path)
    path.write_bytes(b"")
    with pytest.raises(MediaError, match=r"a.png: the file is empty"):
        read_png(path)


def test_wrong_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"invalid image \(4, 4\) float32"):
        write_png(tmp_path / "a.png", np.zeros((4, 4), np.float32))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always-full device")
def test_a_full_disk(tmp_path):
    (tmp_path / "a.png.partial").symlink_to("/dev/full")
    with pytest.raises(MediaError, match=r"a.png: the disk is full"):
        write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert os.listdir(tmp_path) == []


def test_contact_sheet_shows_first_and_last_frame_of_every_row():
    reds = [np.full((20, 40, 3), (value, 0, 0), np.uint8) for value in (50, 100, 150, 200, 250)]
    masks = [np.ones((20, 40), bool)]
    sheet = contact_sheet([("render", reds), ("mask", masks)], columns=3, cell_width=20)
    gap, height, width = 4, 10, 20
    assert sheet.shape == (3 * gap + 2 * height, 4 * gap + 3 * width, 3)
    middles = [gap + width // 2 + column * (width + gap) for column in range(3)]
    assert [sheet[gap + height // 2, x, 0] for x in middles] == [50, 150, 250]
    second_row = 2 * gap + height + height // 2
    assert sheet[second_row, middles[0]].tolist() == [255, 255, 255]
    assert sheet[second_row, middles[1]].tolist() == sheet[0, 0].tolist()
    with pytest.raises(ValueError, match="row 'empty' has no frames"):
        contact_sheet([("empty", [])], columns=3, cell_width=20)
