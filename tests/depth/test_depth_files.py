"""Depth from files: what is accepted, what comes out, and what is refused with its value and remedy."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from ex4d.depth import DepthError, DepthFiles
from ex4d.media import FootageInfo, write_png

FRAMES, HEIGHT, WIDTH = 4, 6, 8
FOOTAGE = FootageInfo(path=Path("clip.mp4"), width=WIDTH, height=HEIGHT, frames=FRAMES, fps=Fraction(24))


@pytest.fixture
def depth() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 9, (FRAMES, HEIGHT, WIDTH)).astype(np.float32)


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(str(path))


def frames_of(path, **options) -> np.ndarray:
    clip = DepthFiles(path, **options).estimate(FOOTAGE)
    frames = list(clip)
    assert all(frame.dtype == np.float32 for frame in frames)
    return np.stack(frames)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, ">f4"])
def test_npz_of_any_type(tmp_path, depth, save, dtype):
    save(tmp_path / "d.npz", depth=depth.astype(dtype))
    clip = DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    assert clip.footage == FOOTAGE and len(clip) == FRAMES
    assert (clip.intrinsics, clip.scale, clip.source) == (None, "metric", "files (d.npz)")
    first, again = np.stack(list(clip)), np.stack(list(clip))
    unit = np.float32(0.001 if dtype is np.uint16 else 1)  # whole numbers are millimetres
    assert np.array_equal(first, depth.astype(dtype).astype(np.float32) * unit)
    assert np.array_equal(first, again)


def test_npz_brings_scale_and_intrinsics(tmp_path, depth):
    one = np.array([[50.0, 0, 4], [0, 50, 3], [0, 0, 1]])
    np.savez(tmp_path / "d.npz", depth=depth, scale=0.5, intrinsics=one)
    assert np.allclose(frames_of(tmp_path / "d.npz"), 0.5 * depth)
    assert np.allclose(frames_of(tmp_path / "d.npz", scale=2), 2 * depth)
    clip = DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    assert clip.intrinsics.shape == (FRAMES, 3, 3) and clip.intrinsics.dtype == np.float64
    zoom = np.stack([one * (1 + i) for i in range(FRAMES)])
    zoom[:, :, 2] = one[:, 2]
    np.savez(tmp_path / "d.npz", depth=depth, intrinsics=zoom)
    assert np.array_equal(DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE).intrinsics, zoom)


def test_npy(tmp_path, depth):
    np.save(tmp_path / "d.npy", depth)
    assert np.array_equal(frames_of(tmp_path / "d.npy"), depth)


def test_inverse_depth(tmp_path, depth):
    np.savez(tmp_path / "d.npz", disparity=1 / depth)
    assert np.allclose(frames_of(tmp_path / "d.npz", key="disparity", inverse=True, scale=3), 3 * depth)
    assert DepthFiles(tmp_path / "d.npz", key="disparity", inverse=True).estimate(FOOTAGE).scale == "relative"


@pytest.mark.parametrize("save", [np.savez_compressed, lambda path, depth: np.save(path, depth)])
def test_memory_does_not_grow_with_the_clip(tmp_path, save):
    depth = np.ones((80, 128, 128), np.float32)  # 5.2 MB
    path = tmp_path / ("d.npz" if save is np.savez_compressed else "d.npy")
    save(path, depth=depth)
    footage = FootageInfo(path=Path("clip.mp4"), width=128, height=128, frames=80, fps=Fraction(24))
    clip = DepthFiles(path).estimate(footage)
    tracemalloc.start()
    count = sum(1 for _ in clip)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 80
    assert peak < 10 * depth[0].nbytes


@pytest.mark.parametrize(
    "channel", ["Z", "Depth", "depth", "ViewLayer.Depth.Z", "ViewLayer.Depth.V", "V", "Y", "R", "depth.Z", "Depth.R"]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exr_sequences(tmp_path, depth, channel, dtype):
    for index in range(FRAMES):  # 8, 9, 10, 11: by number, not by letter
        write_exr(tmp_path / f"d{index + 8}.exr", {channel: depth[index].astype(dtype)})
    assert np.array_equal(frames_of(tmp_path), depth.astype(dtype).astype(np.float32))
    assert np.array_equal(frames_of(tmp_path / "d##.exr"), depth.astype(dtype).astype(np.float32))


def test_exr_depth_among_other_passes(tmp_path, depth):
    for index in range(FRAMES):
        colour = {f"ViewLayer.Combined.{c}": depth[index] * 0 for c in "RGBA"}
        normal = {f"ViewLayer.Normal.{c}": depth[index] * 0 for c in "XYZ"}
        write_exr(tmp_path / f"{index}.exr", {**colour, **normal, "ViewLayer.Depth.Z": depth[index]})
    assert np.array_equal(frames_of(tmp_path), depth)
    with pytest.raises(DepthError, match=r"0.exr: .*'Z'.*ViewLayer.Depth.Z"):
        frames_of(tmp_path, key="Z")


def test_exr_without_a_depth_channel(tmp_path, depth):
    for index in range(FRAMES):
        write_exr(tmp_path / f"{index}.exr", {"A": depth[index], "B": depth[index]})
    with pytest.raises(DepthError, match=r"0.exr: .*A, B.*--depth-key"):
        frames_of(tmp_path)
    assert np.array_equal(frames_of(tmp_path, key="A"), depth)


def test_exr_with_two_depth_channels(tmp_path, depth):
    for index in range(FRAMES):
        write_exr(tmp_path / f"{index}.exr", {"Near.Depth.Z": depth[index], "Far.Depth.Z": depth[index]})
    with pytest.raises(DepthError, match=r"Far.Depth.Z, Near.Depth.Z.*--depth-key"):
        frames_of(tmp_path)


def test_16_bit_png_needs_a_scale(tmp_path, depth):
    millimetres = (depth * 1000).astype(np.uint16)
    for index in range(FRAMES):
        write_png(tmp_path / f"d_{index:04d}.png", millimetres[index])
    assert np.allclose(frames_of(tmp_path, scale=0.001), depth, atol=0.001)
    with pytest.raises(DepthError, match="scale"):
        frames_of(tmp_path)
    write_png(tmp_path / "d_0002.png", np.ones((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DepthError, match=r"d_0002.png: .*8 bits"):
        frames_of(tmp_path, scale=0.001)


def test_another_number_of_frames(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=depth[:3])
    with pytest.raises(DepthError, match=r"3 frames, .*clip.mp4 has 4"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    write_exr(tmp_path / "1.exr", {"Z": depth[0]})
    with pytest.raises(DepthError, match=r"1 frames, .*clip.mp4 has 4"):
        DepthFiles(tmp_path / "*.exr").estimate(FOOTAGE)


def test_another_size(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=depth.transpose(0, 2, 1))
    with pytest.raises(DepthError, match=r"6x8, .*clip.mp4 is 8x6"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    for index in range(FRAMES):
        write_exr(tmp_path / f"{index}.exr", {"Z": depth[index] if index != 2 else depth[index][:, :4].copy()})
    frames = iter(DepthFiles(tmp_path / "*.exr").estimate(FOOTAGE))
    next(frames), next(frames)
    with pytest.raises(DepthError, match=r"2.exr: .*4x6, .*clip.mp4 is 8x6"):
        next(frames)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (FRAMES, HEIGHT, WIDTH, 1)])
def test_another_number_of_dimensions(tmp_path, shape):
    np.savez(tmp_path / "d.npz", depth=np.ones(shape))
    with pytest.raises(DepthError, match=rf"{len(shape)} dimensions"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.nan, "NaN"), (0, "zero"), (-2, "negative"), (np.inf, "infinite"), (-np.inf, "infinite"), (1e10, "infinite")],
)
def test_impossible_values(tmp_path, depth, value, kind):
    depth[2, 1, 3:5] = value
    np.savez(tmp_path / "d.npz", depth=depth)
    frames = iter(DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE))
    assert np.array_equal(next(frames), depth[0]) and np.array_equal(next(frames), depth[1])
    message = rf"d.npz: frame 2: 2 {kind} of 48 .*x=3 y=1 .*--invalid-depth far"
    with pytest.raises(DepthError, match=message):
        next(frames)
    repaired = frames_of(tmp_path / "d.npz", invalid="far")
    expected = depth.copy()
    expected[2, 1, 3:5] = np.delete(depth[2].ravel(), [11, 12]).max()
    assert np.array_equal(repaired, expected)


def test_nothing_hit_stays_far_under_a_scale(tmp_path, depth):
    depth[0, 0, 0] = 1e10
    np.savez(tmp_path / "d.npz", depth=depth)
    assert frames_of(tmp_path / "d.npz", scale=0.01, invalid="far").max() < 1


@pytest.mark.parametrize("invalid", ["error", "far"])
def test_a_frame_without_any_valid_depth(tmp_path, depth, invalid):
    depth[1] = np.nan
    np.savez(tmp_path / "d.npz", depth=depth)
    with pytest.raises(DepthError, match=r"frame 1: .*48 NaN of 48"):
        frames_of(tmp_path / "d.npz", invalid=invalid)


def test_a_missing_key_lists_what_is_there(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depths=depth, fps=24)
    with pytest.raises(DepthError, match=r"'depth'.* depths, fps.*--depth-key"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)


def test_python_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    np.savez(tmp_path / "d.npz", depth=np.array([Bomb()], dtype=object))
    with pytest.raises(DepthError, match="Python objects"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    assert not (tmp_path / "exploded").exists()


def test_values_that_are_not_numbers(tmp_path):
    np.savez(tmp_path / "d.npz", depth=np.full((FRAMES, HEIGHT, WIDTH), "far"))
    with pytest.raises(DepthError, match="<U3"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)


def test_fortran_order_is_refused_with_the_remedy(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=np.asfortranarray(depth))
    with pytest.raises(DepthError, match=r"numpy.ascontiguousarray"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "d.npz").write_text("not a zip")
    with pytest.raises(DepthError, match=r"d.npz: not an .npz"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("depth.npy", b"not an array")
    with pytest.raises(DepthError, match=r"e.npz: 'depth'"):
        DepthFiles(tmp_path / "e.npz").estimate(FOOTAGE)
    (tmp_path / "f.npy").write_bytes(b"")
    with pytest.raises(DepthError, match=r"f.npy"):
        DepthFiles(tmp_path / "f.npy").estimate(FOOTAGE)
    with pytest.raises(DepthError, match=r"g.npz: .*No such file"):
        DepthFiles(tmp_path / "g.npz").estimate(FOOTAGE)
    with pytest.raises(DepthError, match="no depth images"):
        DepthFiles(tmp_path).estimate(FOOTAGE)


def test_truncated_files(tmp_path, depth):
    np.save(tmp_path / "d.npy", depth)
    os.truncate(tmp_path / "d.npy", (tmp_path / "d.npy").stat().st_size - 100)
    frames = iter(DepthFiles(tmp_path / "d.npy").estimate(FOOTAGE))
    for _ in range(3):
        next(frames)
    with pytest.raises(DepthError, match=r"d.npy: .*frame 3 of 4"):
        next(frames)
    np.savez_compressed(tmp_path / "d.npz", depth=depth)
    os.truncate(tmp_path / "d.npz", (tmp_path / "d.npz").stat().st_size // 2)
    with pytest.raises(DepthError, match=r"d.npz: .*truncated"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
    for index in range(FRAMES):
        write_exr(tmp_path / f"{index}.exr", {"Z": depth[index]})
    os.truncate(tmp_path / "0.exr", (tmp_path / "0.exr").stat().st_size - 60)
    with pytest.raises(DepthError, match=r"0.exr"):
        DepthFiles(tmp_path / "*.exr").estimate(FOOTAGE)


def test_a_damaged_npz(tmp_path, depth):
    np.savez_compressed(tmp_path / "d.npz", depth=depth)
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[200:260] = bytes(60)
    (tmp_path / "d.npz").write_bytes(data)
    with pytest.raises(DepthError, match=r"d.npz: .*damaged"):
        frames_of(tmp_path / "d.npz")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("name", ["d.npz", "d.npy", "sequence"])
def test_no_permission(tmp_path, depth, name):
    np.savez(tmp_path / "d.npz", depth=depth)
    np.save(tmp_path / "d.npy", depth)
    (tmp_path / "sequence").mkdir()
    (tmp_path / name).chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything; "nobody" may not
    try:
        with pytest.raises(DepthError, match=r"(?i)permission"):
            DepthFiles(tmp_path / name).estimate(FOOTAGE)
    finally:
        os.seteuid(user)
        (tmp_path / name).chmod(0o700)


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        (np.eye(4), r"shape \(4, 4\). Save \(3, 3\), or \(4, 3, 3\)"),
        (np.diag([0.0, 5, 1]), "focal lengths above 0"),
        (np.diag([5.0, np.nan, 1]), "finite values"),
        (np.stack([np.eye(3)] * 3), r"shape \(3, 3, 3\)"),
    ],
)
def test_impossible_intrinsics(tmp_path, depth, intrinsics, message):
    np.savez(tmp_path / "d.npz", depth=depth, intrinsics=intrinsics)
    with pytest.raises(DepthError, match=message):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_impossible_scale(tmp_path, depth, scale):
    with pytest.raises(DepthError, match=f"scale={scale:g}"):
        DepthFiles(tmp_path / "d.npz", scale=scale)
    np.savez(tmp_path / "d.npz", depth=depth, scale=scale)
    with pytest.raises(DepthError, match=rf"'scale' is {scale:g}|'scale' is {scale:.1f}"):
        DepthFiles(tmp_path / "d.npz").estimate(FOOTAGE)
