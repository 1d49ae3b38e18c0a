"""Footage of every kind comes in as upright sRGB frames at a constant rate, and the count is known beforehand."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from ex4d.media import MediaError, probe, read_frames, write_png

MILLISECONDS = Fraction(1, 1000)


def test_plain_footage(make_video, number_of):
    path = make_video("plain.mp4")
    info = probe(path)
    assert (info.width, info.height, info.frames, info.fps) == (64, 48, 12, 25)
    assert info.notes == ()
    frames = list(read_frames(path))
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert [number_of(frame) for frame in frames] == list(range(12))


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
    ],
)
def test_every_container_counts_exactly(make_video, name, codec, pixel_format, number_of):
    path = make_video(name, codec=codec, pixel_format=pixel_format)
    info = probe(path)
    assert (info.frames, info.fps) == (12, 25)
    assert [number_of(frame) for frame in read_frames(path)] == list(range(12))


def test_a_part_is_the_same_as_in_the_whole(make_video):
    path = make_video("long.mp4", images=60, options={"g": "8", "bf": "3"})
    whole = list(read_frames(path))
    part = list(read_frames(path, start=37, count=11))
    assert len(part) == 11
    assert all(np.array_equal(a, b) for a, b in zip(part, whole[37:48], strict=True))
    with pytest.raises(MediaError, match="no frames 50 to 69, only 60"):
        read_frames(path, start=50, count=20)


def test_ntsc_rate_is_a_fraction_even_where_the_container_rounds_to_milliseconds(make_video):
    path = make_video(
        "ntsc.mkv", images=30, rate=Fraction(30000, 1001), times=[round(i * 1001 / 30) for i in range(30)],
        time_base=MILLISECONDS,
    )  # fmt: skip
    info = probe(path)
    assert (info.frames, info.notes) == (30, ())
    assert float(info.fps) == pytest.approx(29.97, abs=0.01)


def test_variable_frame_rate_is_resampled_and_keeps_its_duration(make_video, number_of):
    times = [0, 40, 80, 120, 400, 440, 480, 520, 800, 840]  # ms; frames 3 and 7 stay on screen for 280 ms
    path = make_video("phone.mp4", images=10, times=times, time_base=MILLISECONDS)
    info = probe(path)
    assert "the frame rate varies" in info.notes[0]
    assert "frame rate varies" in info.notes[0]
    assert float(info.frames / info.fps) == pytest.approx(0.88, abs=0.5 / float(info.fps))
    shown = [number_of(frame) for frame in read_frames(path)]
    assert len(shown) == info.frames
    last_started = [
        max(i for i, t in enumerate(times) if t <= 1000 * k / float(info.fps) + 0.1) for k in range(len(shown))
    ]
    assert shown == last_started
    part = read_frames(path, start=4, count=3)
    assert [number_of(frame) for frame in part] == shown[4:7]


def test_a_frame_in_an_hour_is_a_rate_too(make_video, number_of):
    hours = [0, 1000, 4_000_000, 9_000_000]  # ms
    path = make_video("slow.mkv", images=4, codec="ffv1", times=hours, time_base=MILLISECONDS)
    info = probe(path)
    assert float(info.frames / info.fps) == pytest.approx(9000, rel=0.01)
    assert [number_of(frame) for frame in read_frames(path)] == [0, 1, 2, 2]


def test_a_frame_shown_twice_is_not_shared(make_video):
    path = make_video("still.mp4", images=4, times=[0, 40, 80, 1000], time_base=MILLISECONDS)
    frames = list(read_frames(path))
    assert all(a is not b and not np.shares_memory(a, b) for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("counterclockwise", "clockwise", "red_corner"),
    [(-90, 90, (0, -1)), (180, 180, (-1, -1)), (90, 270, (-1, 0))],
)
def test_rotation_flag_is_applied(make_video, counterclockwise, clockwise, red_corner):
    path = make_video("phone.mp4", rotation=counterclockwise)
    info = probe(path)
    assert (info.width, info.height) == ((48, 64) if clockwise % 180 else (64, 48))
    frame = next(read_frames(path))
    assert frame.shape == (info.height, info.width, 3)
    red, green, blue = frame[red_corner].astype(int)
    assert red > 240 and green < 15 and blue < 15
    assert frame.flags.c_contiguous


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (1, 1), (33, 64)])
def test_odd_sizes_are_kept_exactly(make_video, size, counting_image):
    path = make_video("odd.mkv", size=size, codec="ffv1", pixel_format="bgr0")
    info = probe(path)
    assert (info.width, info.height) == size
    assert np.array_equal(list(read_frames(path))[5][-1, -1], counting_image(5, *size)[-1, -1])


@pytest.mark.parametrize(
    ("name", "codec"), [("deep.mp4", "libx264"), ("deep.mp4", "libx265"), ("deep.mov", "prores_ks")]
)
def test_10_bit_keeps_its_levels(make_video, name, codec, counting_image):
    pixel_format = "yuv422p10le" if codec == "prores_ks" else "yuv420p10le"
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 60, 30)
    image[:, 32:] = 100
    path = make_video(name, images=[image] * 3, codec=codec, pixel_format=pixel_format, options={"crf": "4", **options})
    with av.open(str(path)) as container:
        assert container.streams.video[0].format.components[0].bits == 10
    frame = list(read_frames(path))[2].astype(int)
    assert np.abs(frame[:, 4:28] - (200, 60, 30)).max() <= 3
    assert np.abs(frame[:, 36:] - 100).max() <= 2


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_alpha_is_composited_over_black(make_video, name, codec, pixel_format):
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., :3] = (200, 100, 50)
    image[:, 32:, 3] = 255
    image[:, 16:32, 3] = 128
    options = {"profile": "4444"} if codec == "prores_ks" else {}
    path = make_video(name, images=[image] * 2, codec=codec, pixel_format=pixel_format, options=options)
    info = probe(path)
    assert "composited over black" in info.notes[0]
    frame = next(read_frames(path)).astype(int)
    assert np.abs(frame[24, 8]).max() <= 3
    assert np.abs(frame[24, 24] - (100, 50, 25)).max() <= 3
    assert np.abs(frame[24, 48] - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize(
    ("size", "tags", "matrix"),
    [
        ((64, 48), {"colorspace": 1}, "ITU709"),
        ((64, 48), {"colorspace": 6}, "ITU601"),
        ((64, 48), {}, "ITU601"),
        ((1280, 720), {}, "ITU709"),
    ],
)
def test_colour_matrix_comes_from_the_tag_or_else_from_the_size(make_video, size, tags, matrix):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:] = (40, 200, 60)
    path = make_video("c.mp4", images=[image] * 2, size=size, tags=tags, matrix=matrix, options={"crf": "4"})
    assert np.abs(next(read_frames(path))[24, 24].astype(int) - (40, 200, 60)).max() <= 3


def test_full_range_footage_keeps_black_and_white(make_video):
    black_and_white = np.zeros((48, 64, 3), np.uint8)
    black_and_white[:, 32:] = 255
    path = make_video("full.avi", images=[black_and_white] * 2, codec="mjpeg", pixel_format="yuvj420p")
    frame = next(read_frames(path))
    assert frame[24, 8].max() <= 20 and frame[24, 56].min() >= 230


def test_non_square_pixels_are_kept_and_reported(make_video):
    path = make_video("dv.mp4", tags={"sample_aspect_ratio": Fraction(16, 15)})
    info = probe(path)
    assert (info.width, info.height) == (64, 48) and "16/15" in info.notes[0]
    assert "not square (16/15)" in info.notes[0] and info.pixel_aspect == pytest.approx(16 / 15)


def test_numbered_images_are_footage(tmp_path, counting_image, number_of):
    for index in (1, 2, 9, 10, 11):
        write_png(tmp_path / f"shot_{index}.png", counting_image(index, 31, 20))
    info = probe(tmp_path)
    assert (info.width, info.height, info.frames, info.fps) == (31, 20, 5, 24)
    assert info.notes == ("the numbering jumps from 2 to 9: frames may be missing",)
    assert [number_of(frame) for frame in read_frames(tmp_path)] == [1, 2, 9, 10, 11]
    assert probe(tmp_path, fps=Fraction(30000, 1001)).fps == Fraction(30000, 1001)
    for pattern in ("shot_%04d.png", "shot_##.png", "shot_*.png"):
        assert [number_of(frame) for frame in read_frames(tmp_path / pattern, start=3)] == [10, 11]


def test_a_folder_with_two_sequences_asks_which(tmp_path):
    for name in ("beauty", "mask"):
        write_png(tmp_path / f"{name}_001.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MediaError, match=r"holds 2 sequences \(beauty_#.png, mask_#.png\).*by a pattern"):
        probe(tmp_path)
    assert probe(tmp_path / "mask_#.png").frames == 1


def test_images_of_different_size_are_refused(tmp_path):
    write_png(tmp_path / "a_1.png", np.zeros((4, 6, 3), np.uint8))
    write_png(tmp_path / "a_2.png", np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(MediaError, match=r"a_2.png: is 8x4, but the first image of the sequence is 6x4"):
        list(read_frames(tmp_path))
