"""Videos are written whole or not at all, with the right colours, rate and texts."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from ex4d.media import BackgroundVideoWriter, MediaError, VideoWriter, probe, read_frames, read_metadata

PATCHES = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 0, 255),
    (0, 0, 0),
    (255, 255, 255),
]


def patches(width: int, height: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(PATCHES):
        image[:, index * width // 8 : (index + 1) * width // 8] = colour
    return image


@pytest.mark.parametrize("size", [(256, 128), (257, 127), (1280, 720)])
def test_saturated_colours_come_back(tmp_path, size):
    path = tmp_path / "take.mp4"
    image = patches(*size)
    with VideoWriter(path, *size, 24) as video:
        for _ in range(3):
            video.write(image)
    info = probe(path)
    assert (info.width, info.height, info.frames) == (*size, 3)
    frame = list(read_frames(path))[2].astype(int)
    for index, colour in enumerate(PATCHES):
        centre = frame[size[1] // 2, (2 * index + 1) * size[0] // 16]
        assert np.abs(centre - colour).max() <= 3, colour


@pytest.mark.parametrize(("aspect", "tagged"), [(16 / 15, Fraction(16, 15)), (4 / 3, Fraction(4, 3)), (1.01, None)])
def test_pixels_that_are_not_square_are_tagged(tmp_path, aspect, tagged):
    """Some players read the container's tag, others that of the stream in it."""
    path = tmp_path / "take.mp4"
    with VideoWriter(path, 64, 48, 24, pixel_aspect=aspect) as video:
        video.write(patches(64, 48))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == tagged
        next(container.decode(video=0))
        assert stream.codec_context.sample_aspect_ratio == tagged
    assert probe(path).pixel_aspect == pytest.approx(float(tagged or 1))


def test_tags_say_bt709_limited_range_and_the_index_is_in_front(tmp_path):
    path = tmp_path / "take.mp4"
    with VideoWriter(path, 64, 48, 24) as video:
        video.write(patches(64, 48))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
        assert not context.sample_aspect_ratio, "pixels are square"
    data = path.read_bytes()
    assert b"colrnclx\x00\x01\x00\x01\x00\x01\x00" in data  # primaries, transfer, matrix: 1; not full range
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24), Fraction(15), Fraction(125, 8)])
def test_rate_is_kept_exactly(tmp_path, fps, counting_image, number_of):
    with VideoWriter(tmp_path / "take.mp4", 64, 48, fps) as video:
        for index in range(30):
            video.write(counting_image(index, 64, 48))
    info = probe(tmp_path / "take.mp4")
    assert (info.fps, info.frames, info.notes) == (fps, 30, ())
    assert [number_of(frame) for frame in read_frames(tmp_path / "take.mp4")] == list(range(30))


def test_masks_and_gray_images(tmp_path):
    mask = np.zeros((48, 64), bool)
    mask[:, 32:] = True
    with VideoWriter(tmp_path / "mask.mp4", 64, 48, 24) as video:
        video.write(mask)
        video.write(np.full((48, 64), 100, np.uint8))
    seen, gray = read_frames(tmp_path / "mask.mp4")
    assert np.array_equal(seen[..., 0] > 127, mask)
    assert seen[:, 40:].min() >= 250 and seen[:, :24].max() <= 5
    assert np.abs(gray.astype(int) - 100).max() <= 3


def test_the_same_frames_give_the_same_bytes_whatever_the_memory_held_before(tmp_path):
    """A resumed take has the same files as one that was not stopped; x264 must not read what it has not written."""
    chance = np.random.default_rng(1)
    # Blocks as in a small mask of a shot: near black and white, some gray at their edges.
    masks = [np.kron(chance.integers(0, 256, (4, 6), np.uint8), np.ones((8, 8), np.uint8)) for _ in range(6)]
    written = set()
    for _ in range(150):
        _ = [chance.integers(0, 256, int(chance.integers(100, 200_000)), np.uint8) for _ in range(18)]
        with VideoWriter(tmp_path / "mask.mp4", 48, 32, 24) as video:
            for mask in masks:
                video.write(mask)
        written.add((tmp_path / "mask.mp4").read_bytes())
    assert len(written) == 1


def test_texts_come_back(tmp_path):
    texts = {"ex4d.engine": "preview", "ex4d.seed": "7", "title": "Blüten", "Comment": "a = b; c"}
    with VideoWriter(tmp_path / "take.mp4", 64, 48, 24, metadata=texts) as video:
        video.write(patches(64, 48))
    assert read_metadata(tmp_path / "take.mp4") == texts


@pytest.fixture(params=[VideoWriter, BackgroundVideoWriter])
def writer(request) -> type[VideoWriter]:
    """Errors leave the same behind whichever thread encodes."""
    return request.param


def test_a_thread_writes_the_same_file(tmp_path):
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    for name, kind in (("here.mp4", VideoWriter), ("thread.mp4", BackgroundVideoWriter)):
        with kind(tmp_path / name, 64, 48, 24, metadata={"title": "dusk"}) as video:
            for image in images:
                video.write(image)
    assert (tmp_path / "thread.mp4").read_bytes() == (tmp_path / "here.mp4").read_bytes()


def test_an_error_leaves_the_old_file_and_nothing_else(writer, tmp_path):
    path = tmp_path / "take.mp4"
    path.write_bytes(b"the take before")
    with pytest.raises(OSError, match="camera on fire"), writer(path, 64, 48, 24) as video:
        for _ in range(50):
            video.write(patches(64, 48))
        assert (tmp_path / "take.mp4.partial").exists()
        raise OSError("camera on fire")
    assert path.read_bytes() == b"the take before"
    assert os.listdir(tmp_path) == ["take.mp4"]


def test_a_finished_video_is_named_when_its_block_ends_well(writer, tmp_path):
    with writer(tmp_path / "a.mp4", 64, 48, 24) as video:
        video.write(patches(64, 48))
        video.finish()
        assert os.listdir(tmp_path) == ["a.mp4.partial"]
        with pytest.raises(ValueError, match="works only"):
            video.write(patches(64, 48))
    assert os.listdir(tmp_path) == ["a.mp4"] and probe(tmp_path / "a.mp4").frames == 1
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(OSError, match="its neighbour failed"), writer(tmp_path / "a.mp4", 64, 48, 24) as video:
        video.write(patches(64, 48))
        video.finish()
        raise OSError("its neighbour failed")
    assert os.listdir(tmp_path) == []


def test_a_wrong_frame_is_refused_by_number(writer, tmp_path):
    wrong_size = pytest.raises(ValueError, match="frame 1 is 32x48: the video is 64x48")
    with wrong_size, writer(tmp_path / "a.mp4", 64, 48, 24) as video:
        video.write(patches(64, 48))
        video.write(patches(32, 48))
    assert os.listdir(tmp_path) == []


def test_a_video_without_frames_is_an_error(writer, tmp_path):
    with pytest.raises(MediaError, match="no frame was written"), writer(tmp_path / "a.mp4", 64, 48, 24):
        pass
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_named(writer, tmp_path):
    path = tmp_path / "nowhere" / "a.mp4"
    with pytest.raises(MediaError, match=r"the folder .*nowhere does not exist"), writer(path, 64, 48, 24):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always-full device")
@pytest.mark.parametrize("frames", [1, 400])  # the disk is found full while closing, or while writing
def test_a_full_disk_is_said_so_and_nothing_is_left(writer, tmp_path, frames):
    # The unfinished file is a link to a device on which the kernel refuses every write with "no space left".
    (tmp_path / "take.mp4.partial").symlink_to("/dev/full")
    random = np.random.default_rng(0)
    disk_full = pytest.raises(MediaError, match=r"take.mp4: the disk is full.*Free some space")
    with disk_full, writer(tmp_path / "take.mp4", 64, 48, 24) as video:
        for _ in range(frames):
            video.write(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    assert os.listdir(tmp_path) == []
