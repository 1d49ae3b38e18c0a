"""What identifies footage: its hash and its timecode."""

from __future__ import annotations

import hashlib

import av
import numpy as np
import pytest

from ex4d.media import MediaError, footage_sha256, start_timecode, write_png


def write_with_timecode(path, timecode: str, codec: str = "libx264") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.metadata["timecode"] = timecode
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mov", "libx264"), ("clip.mp4", "libx264"), ("clip.mxf", "mpeg2video")]
)
def test_the_timecode_is_read_from_every_kind_of_file_that_has_one(tmp_path, name, codec):
    write_with_timecode(tmp_path / name, "01:00:00:05", codec)
    assert start_timecode(tmp_path / name) == "01:00:00:05"


def test_footage_without_a_timecode_has_none(make_video, tmp_path):
    assert start_timecode(make_video("clip.mp4")) == ""
    write_png(tmp_path / "frame_0001.png", np.zeros((4, 4, 3), np.uint8))
    assert start_timecode(tmp_path / "frame_%04d.png") == ""


def test_a_sequences_hash_is_that_of_its_files_in_order(tmp_path):
    for number in (10, 9):
        write_png(tmp_path / f"frame_{number}.png", np.full((4, 4, 3), number, np.uint8))
    data = (tmp_path / "frame_9.png").read_bytes() + (tmp_path / "frame_10.png").read_bytes()
    assert footage_sha256(tmp_path) == hashlib.sha256(data).hexdigest()
    assert footage_sha256(tmp_path / "frame_9.png") == hashlib.sha256(data[: len(data) // 2]).hexdigest()
    with pytest.raises(MediaError, match="cannot be opened"):
        footage_sha256(tmp_path / "gone.mp4")
