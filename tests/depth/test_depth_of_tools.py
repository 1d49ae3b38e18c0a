"""Depth as other tools write it: what files are known by, what their values become, and what is asked for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import ex4d
from ex4d.depth import DepthError, DepthFiles
from ex4d.depth.resampling import DepthResampler, same_shape
from ex4d.media import FootageInfo, VideoWriter, probe
from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.sources import DepthSettings, depth_layout
from tests.depth.test_depth_files import write_exr

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
FRAMES, HEIGHT, WIDTH = 3, 48, 80
FOOTAGE = FootageInfo(path=Path("clip.mp4"), width=WIDTH, height=HEIGHT, frames=FRAMES, fps=Fraction(24))
LENS = np.array([[70.0, 0, 40], [0, 70, 24], [0, 0, 1]])


@pytest.fixture(scope="module")
def filmed() -> FootageInfo:
    return probe(CASES / "12_footage.mp4")


@pytest.fixture
def depth() -> np.ndarray:
    """A slope from 2 to 6 behind a square at 1.5."""
    z = np.broadcast_to(np.linspace(2, 6, WIDTH, dtype=np.float32), (FRAMES, HEIGHT, WIDTH)).copy()
    z[:, 12:28, 20:44] = 1.5
    return z


def of_case(name: str, footage: FootageInfo, **options) -> np.ndarray:
    return np.stack(list(DepthFiles(CASES / name, **options).estimate(footage)))


def clip_of(path: Path, **options):
    return DepthFiles(path, **options).estimate(FOOTAGE)


def values_of(path: Path, **options) -> np.ndarray:
    return np.stack(list(clip_of(path, **options)))


def is_affine_disparity(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether 1 / depth is that of the truth but for a factor above 0 and an offset."""
    slope, offset = np.polyfit((1 / truth).ravel(), (1 / found).ravel(), 1)
    return slope > 0 and np.allclose(slope / truth + offset, 1 / found, atol=2e-3 * (1 / found).max())


@pytest.mark.parametrize("key", ["disparity", "inverse_depth", "inv_depth", "idepth"])
def test_an_array_that_is_named_as_inverse_depth_is_never_read_as_depth(tmp_path, depth, key):
    np.savez(tmp_path / "a.npz", **{key: 1 / depth})
    with pytest.raises(DepthError, match="--inverse-depth"):
        values_of(tmp_path / "a.npz", key=key)
    assert np.allclose(values_of(tmp_path / "a.npz", key=key, inverse=True), depth, rtol=1e-5)


def test_depthcrafters_file_is_relative_disparity(filmed):
    clip = DepthFiles(CASES / "12_depthcrafter.npz").estimate(filmed)
    assert clip.scale == "relative" and "DepthCrafter" in clip.source
    found = np.stack(list(clip))
    assert found[0, 0, 0] == found.min() and found[0, -1, -1] == found.max()
    # With the offset that was lost, all depths are right up to a factor.
    lost = (1 / 6.145) / (1 / 2.0 - 1 / 6.145)
    mapped = clip.mapping.changed(offset=lost)
    depth = np.stack([mapped.depth(disparity) for disparity in clip.read()])
    assert depth[0, -1, -1] / depth[0, 0, 0] == pytest.approx(6.145 / 2.0, rel=0.01)
    assert any("--depth-offset" in note for note in clip.notes)


def test_a_normalised_clip_may_reach_0_and_1_in_different_frames(tmp_path, depth):
    disparity = 1 / depth
    disparity[0, 0, 0], disparity[2, 5, 5] = 1 / 50, 1
    disparity = (disparity - disparity.min()) / (disparity.max() - disparity.min())
    np.savez_compressed(tmp_path / "d.npz", depth=disparity.astype(np.float16))
    clip = clip_of(tmp_path / "d.npz")
    assert clip.scale == "relative"
    found = np.stack(list(clip))
    assert found[0, 0, 0] == found.max() and found[2, 5, 5] == found.min()


def test_stated_values_go_before_what_the_file_looks_like(tmp_path, depth):
    near = (depth - 1.5) / 4.5
    np.savez(tmp_path / "d.npz", depth=near)
    assert np.allclose(values_of(tmp_path / "d.npz", values="depth", invalid="far")[near > 0], near[near > 0])


def test_a_scale_says_that_values_from_0_to_1_are_depth(tmp_path, depth):
    near = (depth - 1.5) / 4.5
    np.savez(tmp_path / "d.npz", depth=near)
    clip = clip_of(tmp_path / "d.npz", scale=20, invalid="far")
    assert clip.scale == "metric" and np.allclose(np.stack(list(clip))[near > 0], 20 * near[near > 0])


def test_a_scale_of_disparity_is_refused(tmp_path, depth):
    np.savez(tmp_path / "clip_depths.npz", depths=30 / depth)
    with pytest.raises(DepthError, match=r"scale of 2 .*--depth-values depth"):
        clip_of(tmp_path / "clip_depths.npz", scale=2)
    assert np.allclose(values_of(tmp_path / "clip_depths.npz", scale=2, values="depth"), 60 / depth)


@pytest.mark.parametrize("invalid", ["error", "far"])
def test_zeros_under_small_values_are_asked_about(tmp_path, depth, invalid):
    disparity = 1 / depth
    disparity[:, 0] = 0  # neither 1 nor an array of one tool: depth in metres with gaps, or disparity with sky
    (tmp_path / "frames").mkdir()
    for index in range(FRAMES):
        write_exr(tmp_path / "frames" / f"{index}.exr", {"Z": disparity[index]})
    np.savez(tmp_path / "d.npz", depth=disparity)
    for path in (tmp_path / "frames", tmp_path / "d.npz"):
        with pytest.raises(DepthError, match=r"frame 0: 80 zero .*--depth-values disparity"):
            values_of(path, invalid=invalid)
        found = values_of(path, values="disparity")
        assert (found[:, 0] == found.max()).all()
        rest = np.s_[:, 1:]
        assert is_affine_disparity(found[rest], depth[rest])


def test_video_depth_anythings_file_is_disparity_unless_said_to_be_depth(tmp_path, depth):
    np.savez_compressed(tmp_path / "clip_depths.npz", depths=30 / depth + 2)
    clip = clip_of(tmp_path / "clip_depths.npz")
    assert clip.scale == "relative" and "Video Depth Anything" in clip.source
    assert any("--depth-values depth" in note for note in clip.notes)
    assert is_affine_disparity(np.stack(list(clip)), depth)
    np.savez_compressed(tmp_path / "clip_depths.npz", depths=depth)
    metric = clip_of(tmp_path / "clip_depths.npz", values="depth")
    assert metric.scale == "metric" and np.array_equal(np.stack(list(metric)), depth)


def test_disparity_below_zero_is_shifted(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=1 / depth - 0.4)
    found = values_of(tmp_path / "d.npz", values="disparity")
    near = found < 50  # what is farther comes under the far limit
    assert is_affine_disparity(found[near], depth[near]) and near.mean() > 0.7


def test_gaps_in_disparity(tmp_path, depth):
    disparity = 1 / depth
    disparity[1, 3, 4] = np.nan
    np.savez(tmp_path / "d.npz", depth=disparity)
    with pytest.raises(DepthError, match=r"frame 1: 1 of 3840 .*--invalid-depth far"):
        values_of(tmp_path / "d.npz", values="disparity")
    found = values_of(tmp_path / "d.npz", values="disparity", invalid="far")
    assert found[1, 3, 4] == found[1].max()


def poses() -> np.ndarray:
    """World to camera of a camera that turns and moves."""
    result = np.tile(np.eye(4), (FRAMES, 1, 1))
    for index in range(FRAMES):
        turn = 0.1 * index + 0.3
        result[index, :3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        result[index, :3, 3] = 0.2 * index, 0, 1
    return result


def test_megasams_file_brings_lens_and_poses(tmp_path, depth):
    small = depth[:, ::2, ::2]
    lens = LENS.copy()
    lens[:2] /= 2  # in pixels of its own images
    images = np.zeros((*small.shape, 3), np.uint8)
    world_to_camera = poses()
    np.savez(
        tmp_path / "clip_sgd_cvd_hr.npz",
        images=images,
        depths=small.astype(np.float16),
        intrinsic=lens.astype(np.float32),
        cam_c2w=np.linalg.inv(world_to_camera).astype(np.float32),
    )
    clip = clip_of(tmp_path / "clip_sgd_cvd_hr.npz")
    assert clip.scale == "metric" and "MegaSaM" in clip.source
    assert np.allclose(clip.intrinsics, LENS)
    assert np.allclose(clip.camera.world_to_camera, world_to_camera @ np.linalg.inv(world_to_camera[0]), atol=1e-6)
    assert (np.stack(list(clip))[:, 13:27, 21:43] == 1.5).all()
    twice = clip_of(tmp_path / "clip_sgd_cvd_hr.npz", scale=2)
    assert np.allclose(twice.camera.world_to_camera[:, :3, 3], 2 * clip.camera.world_to_camera[:, :3, 3])


@pytest.mark.parametrize("rows", [3, 4])
def test_depth_anything_3s_export_brings_lens_and_poses(tmp_path, depth, rows):
    lens = np.tile(LENS, (FRAMES, 1, 1)).astype(np.float32)
    world_to_camera = poses()[:, :rows].astype(np.float32)
    conf = np.ones_like(depth)
    np.savez_compressed(tmp_path / "results.npz", depth=depth, conf=conf, extrinsics=world_to_camera, intrinsics=lens)
    clip = clip_of(tmp_path / "results.npz")
    assert "Depth Anything 3" in clip.source and np.allclose(clip.intrinsics, LENS)
    assert np.array_equal(clip.camera.world_to_camera[0], np.eye(4))
    assert np.allclose(clip.camera.world_to_camera[2], poses()[2] @ np.linalg.inv(poses()[0]), atol=1e-6)
    assert np.array_equal(np.stack(list(clip)), depth)


def test_poses_that_are_none(tmp_path, depth):
    world_to_camera = poses()
    world_to_camera[1, :3, :3] *= 1.5
    np.savez(tmp_path / "results.npz", depth=depth, extrinsics=world_to_camera, intrinsics=LENS)
    with pytest.raises(DepthError, match=r"'extrinsics' .*rotations"):
        clip_of(tmp_path / "results.npz")


def test_a_name_that_says_disparity_is_asked_about(tmp_path, depth):
    np.savez(tmp_path / "d.npz", disps=1 / depth)
    with pytest.raises(DepthError, match=r"'disps' .*--inverse-depth.*--depth-values disparity"):
        clip_of(tmp_path / "d.npz", key="disps")
    assert np.allclose(values_of(tmp_path / "d.npz", key="disps", inverse=True), depth)


def test_whole_numbers_are_millimetres_unless_a_scale_is_given(tmp_path, depth):
    np.savez(tmp_path / "d.npz", depth=(depth * 1000).astype(np.uint16))
    clip = clip_of(tmp_path / "d.npz")
    assert np.allclose(np.stack(list(clip)), depth, atol=0.001)
    assert any("millimetres" in note and "--depth-scale" in note for note in clip.notes)
    assert np.allclose(values_of(tmp_path / "d.npz", scale=0.0002), depth / 5, atol=0.001)
    np.savez(tmp_path / "d.npz", depth=(255 / depth).astype(np.uint8))
    with pytest.raises(DepthError, match=r"8 bits .*--depth-scale"):
        clip_of(tmp_path / "d.npz")


def test_distance_along_rays(filmed, tmp_path):
    with pytest.raises(DepthError, match="--fov"):
        of_case("12_ray_distance_of_plane_z4.npz", filmed, values="distance")
    scene = ex4d.reconstruct(
        filmed.path, tmp_path / "scene", depth=CASES / "12_ray_distance_of_plane_z4.npz", fov=60, values="distance"
    )
    assert np.abs(scene.depth() - 4).max() < 0.005


def test_distance_along_rays_of_a_file_with_its_own_lens(tmp_path):
    lens = np.array([[70.0, 0, 30], [0, 60, 20], [0, 0, 1]])
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5 - 30) / 70, (np.arange(HEIGHT) + 0.5 - 20) / 60)
    distance = np.tile(4 * np.sqrt(1 + x**2 + y**2), (FRAMES, 1, 1)).astype(np.float32)
    np.savez(tmp_path / "d.npz", depth=distance, intrinsics=lens)
    assert np.allclose(values_of(tmp_path / "d.npz", values="distance"), 4, atol=1e-5)
    for index in range(FRAMES):
        write_exr(tmp_path / f"{index}.exr", {"Z": distance[index]})
    assert np.allclose(values_of(tmp_path / "*.exr", values="distance", intrinsics=lens), 4, atol=1e-5)


def test_half_size_is_resampled(filmed):
    found = of_case("12_half_size.npz", filmed)
    assert found.shape[1:] == (filmed.height, filmed.width)
    # The stored columns are 0.02 apart.
    steps = np.diff(found[0, filmed.height // 2, 2:-2].astype(np.float64))
    assert np.allclose(steps, 0.01, atol=1e-3), "a slope stays smooth"


@pytest.mark.parametrize("target", [(160, 96), (53, 32), (84, 50)])
def test_resampling_makes_no_new_depths_at_edges(depth, target):
    step = np.where(depth[0] == 1.5, np.float32(1.5), np.float32(6))
    found = DepthResampler((WIDTH, HEIGHT), target)(step)
    assert found.shape == target[::-1] and set(np.unique(found)) == {1.5, 6.0}
    holes = step.copy()
    holes[5, 5], holes[9, 9], holes[40, 70] = np.nan, np.inf, 0
    found = DepthResampler((WIDTH, HEIGHT), target)(holes)
    assert set(np.unique(found[np.isfinite(found)])) <= {0.0, 1.5, 6.0}


def test_resampling_keeps_slopes_and_their_place():
    x = np.arange(WIDTH, dtype=np.float32) + 0.5
    slope = np.tile(10 + 0.1 * x, (HEIGHT, 1))
    found = DepthResampler((WIDTH, HEIGHT), (3 * WIDTH, 3 * HEIGHT))(slope.astype(np.float16))
    expected = 10 + 0.1 * (np.arange(3 * WIDTH) + 0.5) / 3
    assert np.allclose(found[10, 3:-3], expected[3:-3], atol=0.01)


@pytest.mark.parametrize(
    ("size", "footage", "same"),
    [
        ((160, 96), (320, 192), True),
        ((504, 280), (1920, 1080), True),  # sides of Depth Anything 3, multiples of 14
        ((640, 384), (960, 540), True),  # of DepthCrafter, multiples of 64
        ((1920, 804), (1920, 1080), False),  # another crop
        ((1920, 1038), (1920, 1080), False),
        ((192, 320), (320, 192), False),
    ],
)
def test_shapes_that_show_the_same_picture(size, footage, same):
    assert same_shape(size, footage) is same


def test_intrinsics_in_other_units(filmed, tmp_path, depth):
    clip = DepthFiles(CASES / "12_normalised_intrinsics.npz").estimate(filmed)
    assert clip.intrinsics[0] == pytest.approx(np.array([[277.13, 0, 160], [0, 277.13, 96], [0, 0, 1]]), abs=0.01)
    with pytest.raises(DepthError, match=r"\(960, 576\).*1920x1152.*320x192"):
        DepthFiles(CASES / "12_intrinsics_of_1920.npz").estimate(filmed)
    # A stated lens needs none of the file's.
    stated = clip.intrinsics[0]
    assert DepthFiles(CASES / "12_intrinsics_of_1920.npz", intrinsics=stated).estimate(filmed).intrinsics is None
    lens = LENS.copy()
    lens[:2] *= 1.5  # inside of the image, but its centre is that of 120x72
    np.savez(tmp_path / "d.npz", depth=depth, intrinsics=lens)
    with pytest.raises(DepthError, match=r"\(60, 36\).*120x72"):
        clip_of(tmp_path / "d.npz")
    shifted = LENS.copy()
    shifted[0, 2] += 12  # a lens that is shifted to one side is a lens
    np.savez(tmp_path / "d.npz", depth=depth, intrinsics=shifted)
    assert np.array_equal(clip_of(tmp_path / "d.npz").intrinsics[0], shifted)


@pytest.mark.parametrize("factor", [1, 2])
def test_intrinsics_beside_depth_of_another_size(tmp_path, depth, factor):
    lens = LENS.copy()
    lens[:2] /= factor  # in pixels of the footage, or of the depth
    np.savez(tmp_path / "d.npz", depth=depth[:, ::2, ::2], intrinsics=lens)
    assert np.allclose(clip_of(tmp_path / "d.npz").intrinsics, LENS)


@pytest.mark.parametrize("name", ["08_window_shift", "08_window_crop"])
def test_exr_data_windows_are_placed_in_the_display_window(filmed, name):
    clip = DepthFiles(CASES / name).estimate(filmed)
    found = np.stack(list(clip))
    assert found[0, 96, 160] == pytest.approx(4.08, abs=0.005)
    assert found[0, 50, 100] == pytest.approx(3.25, abs=0.005)
    assert found[0, 0, 0] == found[0].max(), "where nothing was rendered, it is far"
    assert any("data window" in note for note in clip.notes)


def test_an_exr_with_overscan_is_cropped(tmp_path, depth):
    import OpenEXR

    wide = np.pad(depth[0], ((6, 6), (10, 10)), constant_values=9.0)
    window = lambda left, top, right, bottom: (np.array([left, top], np.int32), np.array([right, bottom], np.int32))  # noqa: E731
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "displayWindow": window(0, 0, WIDTH - 1, HEIGHT - 1),
        "dataWindow": window(-10, -6, WIDTH + 9, HEIGHT + 5),
    }
    for index in range(FRAMES):
        OpenEXR.File(header, {"Depth.Z": wide}).write(str(tmp_path / f"{index}.exr"))
    assert np.array_equal(values_of(tmp_path)[0], depth[0])


def test_a_depth_video_is_read_where_its_greys_are_explained(filmed):
    with pytest.raises(DepthError, match=r"a video of 3 frames of 320x192 in 8 bits.*--depth-values disparity"):
        of_case("12_depth_video.mp4", filmed)
    with pytest.raises(DepthError, match="--depth-scale"):
        of_case("12_depth_video.mp4", filmed, values="depth")
    found = of_case("12_depth_video.mp4", filmed, values="disparity")
    assert found[0, :4, :4].max() < found[0, -4:, -4:].min(), "white is near"
    depths = of_case("12_depth_video.mp4", filmed, values="depth", scale=10)
    assert depths[0, 0, 0] == pytest.approx(10 * 253 / 255, rel=0.01)
    assert depth_layout(CASES / "12_depth_video.mp4") == "video"


def write_deep_video(path: Path, levels: np.ndarray, rotation: int = 0) -> None:
    """A lossless video of 16 bits that shows one image (h, w) all the time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        (stream.height, stream.width), stream.pix_fmt = levels.shape, "gray16le"
        if rotation:
            stream.set_display_rotation(rotation)
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="gray16le")))
        container.mux(stream.encode())


def test_a_deep_grey_video_keeps_its_bits_and_is_turned_as_it_says(tmp_path):
    levels = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 16 + 1000
    write_deep_video(tmp_path / "d.mkv", levels)
    write_deep_video(tmp_path / "turned.mkv", np.rot90(levels), rotation=-90)
    for name in ("d.mkv", "turned.mkv"):
        found = values_of(tmp_path / name, values="depth", scale=65.535)
        assert np.allclose(found[1], levels / 1000, atol=1e-5), name


def test_a_video_through_a_colour_map_is_refused(tmp_path):
    with VideoWriter(tmp_path / "d.mp4", WIDTH, HEIGHT, 24, crf=4) as movie:
        for _ in range(FRAMES):
            movie.write(np.tile(np.array([200, 60, 20], np.uint8), (HEIGHT, WIDTH, 1)))
    with pytest.raises(DepthError, match="colour map"):
        values_of(tmp_path / "d.mp4", values="disparity")


def test_settings_that_do_not_go_together():
    for fields in (
        {"layout": "estimator", "estimator": "auto", "values": "depth"},
        {"layout": "array", "values": "disparity", "scale": 2.0},
        {"layout": "array", "values": "disparity", "inverse": True},
    ):
        with pytest.raises(RequestError, match="values="):
            DepthSettings(**fields)
    sent = ReconstructionSettings("walk", DepthSettings("array", values="distance")).to_wire()
    assert ReconstructionSettings.from_wire(sent).depth.values == "distance"
    assert "values" not in DepthSettings("array").to_wire(), "which older sides would refuse"
