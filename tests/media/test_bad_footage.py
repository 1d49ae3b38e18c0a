"""What cannot be read is refused with the file, the value and the remedy."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest

from ex4d.media import MediaError, probe, read_frames, write_png


def noise(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


def cut(path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def test_missing(tmp_path):
    with pytest.raises(MediaError, match=r"clip.mp4: cannot be opened \(No such file"):
        probe(tmp_path / "clip.mp4")


def test_empty(tmp_path):
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(MediaError, match=r"clip.mp4: the file is empty \(0 bytes\). Copy or export it again"):
        probe(tmp_path / "clip.mp4")


def test_not_a_video(tmp_path):
    (tmp_path / "clip.mp4").write_text("Dear diary,\n" * 100)
    with pytest.raises(MediaError, match=r"clip.mp4: not a readable video. Export it as"):
        probe(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    "playlist", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nx.ts\n", "ffconcat version 1.0\nfile x.ts\n"]
)
def test_a_playlist_never_opens_other_files(make_video, tmp_path, playlist):
    make_video("x.ts")
    (tmp_path / "clip.mp4").write_text(playlist)
    with pytest.raises(MediaError, match="not a readable video"):
        probe(tmp_path / "clip.mp4")


def test_sound_only(tmp_path):
    path = tmp_path / "voice.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match=r"voice.mp4: has no video stream \(sound only\)"):
        probe(path)


def test_no_frames(tmp_path):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "bgr0"
        container.start_encoding()
    with pytest.raises(MediaError, match=r"none.mkv: (0 frames are readable|not a readable video|has no video)"):
        probe(path)


def test_truncated_before_its_index(make_video):
    path = make_video("clip.mp4", images=noise(12))
    cut(path, 0.5)
    with pytest.raises(MediaError, match=r"clip.mp4: truncated or damaged: 0 frames are readable.*Copy or export"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("c.mp4", "libx264", "yuv420p"), ("c.mkv", "ffv1", "bgr0"), ("c.avi", "mjpeg", "yuvj420p")],
)
def test_truncated_names_readable_and_promised_frames_and_gives_the_readable_part(
    make_video, name, codec, pixel_format
):
    options = {"movflags": "faststart"} if name == "c.mp4" else {}
    path = make_video(name, images=noise(40), codec=codec, pixel_format=pixel_format, container_options=options)
    whole = list(read_frames(path))
    cut(path, 0.7)
    with pytest.raises(
        MediaError, match=r"truncated: only \d+ of 40 frames are readable. Copy or export.*count="
    ) as error:
        probe(path)
    readable = int(str(error.value).split("count=")[1].rstrip("."))
    assert 15 < readable < 40
    assert probe(path, count=readable).frames == readable
    part = list(read_frames(path, count=readable))
    assert len(part) == readable
    assert all(np.array_equal(a, b) for a, b in zip(part, whole, strict=False))
    with pytest.raises(MediaError):
        read_frames(path)
    with pytest.raises(MediaError, match="no frames 0 to 39"):
        probe(path, count=40)


def test_damage_in_the_middle_is_named_when_it_is_reached(make_video, number_of):
    path = make_video("c.mov", images=12, codec="png", pixel_format="rgb24")
    data = bytearray(path.read_bytes())
    frame_7 = [i for i in range(len(data)) if data.startswith(b"\x89PNG", i)][7]
    data[frame_7 : frame_7 + 40] = bytes(40)
    path.write_bytes(data)
    frames = read_frames(path)
    assert [number_of(next(frames)) for _ in range(7)] == list(range(7))
    with pytest.raises(MediaError, match=r"c.mov: damaged: frame 7 cannot be decoded \(7 of 12.*count=7"):
        next(frames)
    assert len(list(read_frames(path, count=7))) == 7


def test_a_folder_without_images(tmp_path):
    with pytest.raises(MediaError, match=r"holds no images \(.png .jpg.*Choose the folder"):
        probe(tmp_path)


def test_a_damaged_image_in_a_sequence(tmp_path):
    for index in range(3):
        write_png(tmp_path / f"a_{index}.png", np.zeros((40, 40, 3), np.uint8))
    cut(tmp_path / "a_1.png", 0.8)
    frames = read_frames(tmp_path)
    next(frames)
    with pytest.raises(MediaError, match=r"a_1.png: truncated PNG"):
        next(frames)


def test_a_rate_for_a_video_is_refused(make_video):
    with pytest.raises(MediaError, match="fps=30"):
        probe(make_video("a.mp4"), fps=30)
