"""Invalid input gives a clear error, valid input a correct image: on the CPU, and on a GPU if there is one.

``pytest -m gpu`` runs the GPU's half.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.devices import DeviceError
from ex4d.mesh import DepthSurface, MeshDepthError
from ex4d.raster import (
    Rasterizer,
    RasterizerUnavailableError,
    create_rasterizer,
    render_in_batches,
)
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath, intrinsics_matrix

on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine"),
]
SIZES = [(512, 512), (832, 480), (1280, 720), (1920, 1080), (2048, 2048)]
EVERYWHERE = [
    "warp cpu",
    pytest.param("warp cuda", marks=on_a_gpu),
    pytest.param("nvdiffrast cuda", marks=on_a_gpu),
]


@pytest.fixture(scope="module", params=EVERYWHERE)
def rasterizer(request) -> Rasterizer:
    name, device = request.param.split()
    try:
        return create_rasterizer(name, device, "research")
    except RasterizerUnavailableError as error:
        pytest.skip(str(error))


def wall(width: int = 60, height: int = 40) -> DepthSurface:
    """A flat wall at depth 4, in one colour."""
    color = torch.full((1, height, width, 3), 200, dtype=torch.uint8)
    intrinsics = torch.from_numpy(intrinsics_matrix(width, width, width / 2, height / 2)[None])
    return DepthSurface(torch.full((1, height, width), 4.0), color, intrinsics)


def still(frames: int = 1) -> np.ndarray:
    return np.eye(4)[None].repeat(frames, 0)


def camera_of(poses: np.ndarray, width: int = 60, height: int = 40) -> CameraPath:
    return CameraPath(poses, intrinsics_matrix(width, width, width / 2, height / 2), width, height)


def shown(rasterizer: Rasterizer, surface: DepthSurface, poses: np.ndarray, size: tuple[int, int] = (60, 40)):
    frames = rasterizer.render(surface, camera_of(poses, *size), with_depth=True).to("cpu")
    assert frames.color.shape == (len(poses), size[1], size[0], 3)
    assert (frames.color[~frames.mask] == 0).all()
    assert not frames.depth.isnan().any()
    return frames


def test_constant_depth_is_a_wall(rasterizer) -> None:
    frames = shown(rasterizer, wall(), still())
    assert frames.mask.float().mean() > 0.9
    assert (frames.color[frames.mask] == 200).all()
    np.testing.assert_allclose(frames.depth[0, 5:-5, 5:-5], 4.0, rtol=1e-4)


def test_one_near_pixel_before_a_wall_hides_no_more_than_its_shadow(rasterizer) -> None:
    surface = wall()
    surface.depth[0, 20, 30] = 2.0
    aside = still()
    aside[0, 0, 3] = -0.3
    frames = shown(rasterizer, surface, aside)
    assert 0.8 < frames.mask.float().mean() < 1.0


def test_two_by_two_pixels_are_the_smallest_image(rasterizer) -> None:
    """In EX-4D's own convention they are all border; in ours they stay what they are."""
    tiny = wall(2, 2)
    frames = shown(rasterizer, tiny, still(), (2, 2))
    assert rasterizer.name != "warp" or frames.mask.all()
    border = replace(tiny, convention="reference", occlusion="open")
    assert not shown(rasterizer, border, still(), (2, 2)).mask.any()
    with pytest.raises(MeshDepthError, match="invalid size 1 x 1"):
        wall(1, 1)


@pytest.mark.parametrize("squash", [(0, 1, 1), (1, 0, 1), (0, 0, 1), (0, 0, 0)])
def test_faces_of_no_area_draw_nothing(rasterizer, squash) -> None:
    flat = replace(wall(), camera_to_world=np.diag([*map(float, squash), 1.0])[None])
    assert not shown(rasterizer, flat, still()).mask.any()


def test_faces_behind_the_camera_draw_nothing(rasterizer) -> None:
    ahead = still(3)
    ahead[:, 2, 3] = [-3.9, -4.1, -9.0]  # just before the wall, just behind it, far behind it
    surface = wall()
    surface = replace(
        surface,
        depth=surface.depth.expand(3, -1, -1),
        color=surface.color.expand(3, -1, -1, -1),
        intrinsics=surface.intrinsics.expand(3, 3, 3),
    )
    frames = shown(rasterizer, surface, ahead)
    assert frames.mask[0].float().mean() > 0.9
    assert not frames.mask[1:].any()


def test_from_behind_the_wall_nothing_is_seen(rasterizer) -> None:
    behind = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    behind[0, 2, 3] = 10.0
    assert not shown(rasterizer, wall(), behind).mask.any()


@pytest.mark.parametrize("source", [(2, 2), (512, 512), (90, 700)])
def test_a_render_of_one_pixel(rasterizer, source) -> None:
    surface = synthetic_surface(1, *source)
    assert shown(rasterizer, surface, still(), (1, 1)).mask.shape == (1, 1, 1)


SOURCES_AND_TARGETS = [((512, 512), (832, 480)), ((2, 2), (333, 222)), ((640, 360), (90, 700))]


@pytest.mark.parametrize(("source", "target"), SOURCES_AND_TARGETS)
def test_the_renders_size_is_not_the_footages(rasterizer, source, target) -> None:
    surface = synthetic_surface(2, *source)
    assert shown(rasterizer, surface, synthetic_camera(2, *target, 10).world_to_camera, target).mask.any()


@pytest.mark.parametrize("size", SIZES)
def test_every_resolution_in_batches_shows_what_a_small_one_shows(rasterizer, size) -> None:
    surface = synthetic_surface(2, *size)
    batches = list(render_in_batches(rasterizer, surface, synthetic_camera(2, *size, 20), batch_frames=1))
    assert [tuple(batch.mask.shape) for batch in batches] == [(1, size[1], size[0])] * 2
    small = (size[0] // 2, size[1] // 2)
    half = rasterizer.render(synthetic_surface(2, *small), synthetic_camera(2, *small, 20))
    for k, batch in enumerate(batches):
        share, half_share = (float(mask.float().mean()) for mask in (batch.mask, half.mask[k]))
        # stretched faces are a pixel wide at any size: smaller images lose more at discontinuities
        assert share == pytest.approx(half_share, abs=0.12)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_depth_that_cannot_be_is_refused_with_its_frame_and_value(rasterizer, value) -> None:
    surface = wall()
    surface.depth[0, 3, 4] = value
    with pytest.raises(MeshDepthError, match=f"depth of frame 0 has 1 values.*first: {value}"):
        rasterizer.render(surface, camera_of(still()))


def test_a_camera_path_of_another_length_is_refused_with_both(rasterizer) -> None:
    with pytest.raises(ValueError, match="a camera path of 2 frames does not fit a surface of 1"):
        rasterizer.render(wall(), camera_of(still(2)))


DEVICES = ["cpu", pytest.param("cuda", marks=on_a_gpu)]


@pytest.fixture
def broken_nvdiffrast(tmp_path, monkeypatch) -> Iterator[None]:
    """A package of that name that was built for another PyTorch, before any other on the path."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "nvdiffrast"]:
            monkeypatch.delitem(sys.modules, name)

    package = tmp_path / "nvdiffrast" / "torch"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c104cuda9SetDeviceEa')")
    forget()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "nvdiffrast"]:
        del sys.modules[name]


@pytest.mark.parametrize("device", DEVICES)
def test_nvdiffrast_built_for_another_torch_is_refused_and_auto_goes_on(broken_nvdiffrast, device) -> None:
    reason = "was built for another PyTorch than this" if device == "cuda" else "draws on CUDA devices only"
    with pytest.raises(RasterizerUnavailableError, match=reason):
        create_rasterizer("nvdiffrast", device, "research")
    assert create_rasterizer("auto", device, "research").name == "warp"


@pytest.mark.parametrize("device", DEVICES)
def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(device) -> None:
    reason = "there is no device cuda:99: this machine has cuda:0" if torch.cuda.is_available() else "or use device cpu"
    with pytest.raises(DeviceError, match=reason):
        create_rasterizer("warp", "cuda:99")
