"""Images that do not fit into memory are refused with the figures before they are decoded."""

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest

from ex4d import memory
from ex4d.media import MediaError, probe, read_exr_channels, scan, write_png
from ex4d.memory import MemoryRoomError, free_memory, require_memory
from ex4d.mesh import grid_topology
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.scene_estimates import LARGE_PIXELS, scene_memory_bytes
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.sources import DepthSettings


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes that says that it has side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    bomb(tmp_path / "shot" / "0001.png", 300_000)
    with pytest.raises(MemoryRoomError, match=r"300000x300000 pixels needs about 2880\.0 GB of memory, and .* GB are"):
        probe(tmp_path / "shot")


def test_footage_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "shot").mkdir()
    write_png(tmp_path / "shot" / "0001.png", np.zeros((40, 60, 3), np.uint8))
    np.save(tmp_path / "depth.npy", np.full((1, 40, 60), 2, np.float32))
    settings = ReconstructionSettings(name="x", fov_degrees=50.0, depth=DepthSettings(layout="array"))
    sources, needed = SourcePaths(tmp_path / "shot", tmp_path / "depth.npy"), scene_memory_bytes(60, 40)
    monkeypatch.setattr(memory, "free_memory", lambda: needed - 1)
    with pytest.raises(MemoryRoomError, match="60x40 pixels"):
        reconstruct(sources, settings, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()
    monkeypatch.setattr(memory, "free_memory", lambda: needed)
    assert reconstruct(sources, settings, tmp_path / "scene").manifest.frames == 1


def test_large_footage_needs_less_for_each_pixel():
    side = int(LARGE_PIXELS**0.5)
    assert scene_memory_bytes(2 * side, 2 * side) < 2 * scene_memory_bytes(side, side)
    assert scene_memory_bytes(8000, 8000) < 8e9


def test_free_memory_is_that_of_the_container_if_that_has_less(tmp_path, monkeypatch):
    for name, text in (("max", "3000000"), ("current", "1000000"), ("stat", "anon 5\ninactive_file 250000\n")):
        (tmp_path / name).write_text(text)
    names = tuple(str(tmp_path / name) for name in ("max", "current", "stat"))
    monkeypatch.setattr(memory, "_CGROUPS", (names,))
    assert free_memory() == 2_250_000
    (tmp_path / "max").write_text("max\n")
    assert free_memory() > 10_000_000
    require_memory(1000, "nothing")


def test_topology_written_in_place_is_the_same():
    faces, uvs, caps = grid_topology(2, 2, "reference")
    assert faces.tolist() == [[2, 0, 1], [2, 1, 3], [1, 0, 3], [3, 0, 2]] and caps == 2
    assert uvs.tolist() == [[0.25, 0.75], [0.75, 0.75], [0.25, 0.25], [0.75, 0.25]]


ENCODERS = {
    "clip.mp4": ("mpeg4", "yuv420p"),
    "clip.mkv": ("ffv1", "yuv420p"),
    "clip.avi": ("mjpeg", "yuvj420p"),
    "0001.jpg": ("mjpeg", "yuvj420p"),
    "0001.tiff": ("tiff", "rgb24"),
    "0001.bmp": ("bmp", "bgr24"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_images_and_videos_of_every_kind_are_refused_before_a_frame_is_decoded(name, tmp_path, monkeypatch):
    path, (codec, pixels) = tmp_path / name, ENCODERS[name]
    with av.open(str(path), "w", format=None if name.startswith("clip") else "image2") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, pixels
        frame = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), "rgb24").reformat(format=pixels)
        container.mux([*stream.encode(frame), *stream.encode()])
    footage = path if name.startswith("clip") else tmp_path
    assert probe(footage).width == 640
    scan._scan.cache_clear()
    monkeypatch.setattr(memory, "free_memory", lambda: 32 * 640 * 480 - 1)
    monkeypatch.setattr(scan, "decoded_frames", lambda *_: pytest.fail("a frame is decoded"))
    with pytest.raises(MemoryRoomError, match=f"{name}: .* of 640x480 pixels needs about"):
        probe(footage)


def test_a_frame_that_is_larger_than_its_file_says_is_not_decoded(make_video, monkeypatch):
    path = make_video("clip.mp4")
    assert probe(path).width == 64
    scan._scan.cache_clear()
    monkeypatch.setattr(scan, "most_pixels", lambda: 64 * 48 - 1)
    with pytest.raises(MediaError, match=r"clip\.mp4: 0 of \d+ frames are readable"):
        probe(path)


def test_an_exr_is_refused_before_its_channels_are_read(tmp_path):
    path = tmp_path / "z.exr"
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": np.ones((8, 8), np.float32)}) as file:
        file.write(str(path))
    data, window = path.read_bytes(), struct.pack("<4i", 0, 0, 7, 7)
    assert data.count(window) == 2, "data window and display window"
    path.write_bytes(data.replace(window, struct.pack("<4i", 0, 0, 99_999, 99_999), 1))
    with pytest.raises(MemoryRoomError, match="an EXR of 100000x100000 pixels in 1 channels needs about 80"):
        read_exr_channels(path)


def test_the_estimators_network_counts(tmp_path, monkeypatch):
    (tmp_path / "shot").mkdir()
    write_png(tmp_path / "shot" / "0001.png", np.zeros((40, 60, 3), np.uint8))
    depth = DepthSettings(layout="estimator", estimator="depth-anything-v2")
    settings = ReconstructionSettings(name="x", fov_degrees=50.0, depth=depth)
    monkeypatch.setattr(memory, "free_memory", lambda: 1_500_000_000)
    with pytest.raises(MemoryRoomError, match=r"60x40 pixels with the estimator depth-anything-v2 needs about 1\.6 GB"):
        reconstruct(SourcePaths(tmp_path / "shot"), settings, tmp_path / "scene", device="cpu")
