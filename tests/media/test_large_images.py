"""Images that do not fit into memory are refused with the figures before they are decoded."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from ex4d import memory
from ex4d.media import probe, write_png
from ex4d.memory import MemoryRoomError, free_memory, require_memory
from ex4d.mesh import grid_topology
from ex4d.pipeline.estimate import LARGE_PIXELS, scene_memory_bytes
from ex4d.pipeline.reconstruct import SourcePaths, reconstruct
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
