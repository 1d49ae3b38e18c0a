"""What must hold on a GPU: parity with the original, likeness of CPU and CUDA, the same bytes each time, little memory.

Run them where there is one: ``pytest -m gpu``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.original_loop import render_as_the_original
from ex4d.mesh import DepthSurface
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.surfaces import measured
from ex4d.pipeline.view import SceneViews
from ex4d.raster import (
    Rasterizer,
    RasterizerUnavailableError,
    RenderedBatch,
    RenderMemoryError,
    create_rasterizer,
    render_in_batches,
    sparse_camera,
    visible_fractions,
)
from ex4d.raster.nvdiffrast_rasterizer import load_nvdiffrast
from ex4d.raster.simplified_frame import SimplifiedFrame
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath, from_reference, intrinsics_matrix
from ex4d_core.scene import Scene
from ex4d_core.shot import PreviewSettings, ShotRequest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine"),
]

TRAJECTORIES = [(name, "angle") for name in ("30", "60", "90", "180", "free")] + [("180", "boundary")]


@pytest.fixture(scope="module", params=["warp", "nvdiffrast"])
def rasterizer(request) -> Rasterizer:
    try:
        return create_rasterizer(request.param, "cuda", "research")
    except RasterizerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def warp() -> Rasterizer:
    return create_rasterizer("warp", "cuda")


def golden_surface(original: Mapping[str, np.ndarray], rule: str = "angle") -> DepthSurface:
    depth, color = torch.from_numpy(original["depth"]), torch.from_numpy(original["rgb"])
    intrinsics = torch.from_numpy(original["intrinsics"]).expand(len(depth), 3, 3)
    return DepthSurface(depth, color, intrinsics, convention="reference", occlusion_rule=rule)


def golden_camera(original: Mapping[str, np.ndarray], trajectory: str) -> CameraPath:
    poses = from_reference(original[f"extrinsics_{trajectory}"][original["frames"]])
    return CameraPath(poses, original["intrinsics"], *original["depth"].shape[:0:-1])


def overlaps(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """IoU of each frame's masks; 1 where nothing is seen in either."""
    a, b = a.cpu(), b.cpu()
    return [float((x & y).sum() / (x | y).sum()) if (x | y).any() else 1.0 for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(("trajectory", "rule"), TRAJECTORIES)
def test_renders_match_the_originals(rasterizer, golden_geometry, psnr, trajectory: str, rule: str) -> None:
    original = golden_geometry

    frames = rasterizer.render(golden_surface(original, rule), golden_camera(original, trajectory)).to("cpu")

    expected = original[f"render_{trajectory}" if rule == "angle" else f"render_{rule}_{trajectory}"][1:]
    seen = torch.from_numpy(expected[..., 3] > 0)
    found = overlaps(frames.mask[1:], seen)
    ratios = [
        psnr(frames.color[k + 1].numpy(), expected[k, ..., :3], (frames.mask[k + 1] & seen[k]).numpy())
        for k in range(len(seen))
    ]
    print(f"{rasterizer.name} {trajectory} {rule}: IoU {min(found):.5f} to {max(found):.5f}, PSNR {min(ratios):.1f} dB")
    worst, mean, decibels = (0.999, 0.999, 45.0) if rasterizer.name == "nvdiffrast" else (0.9995, 0.9999, 48.0)
    assert min(found) >= worst
    assert np.mean(found) >= (mean if len(found) > 2 else worst)
    assert min(ratios) >= decibels


@pytest.mark.parametrize(
    ("convention", "occlusion"),
    [
        ("centered", "watertight"),
        ("centered", "open"),
        ("centered", "thickness"),
        ("reference", "watertight"),
        ("reference", "open"),
    ],
)
def test_cpu_and_cuda_agree(warp, golden_geometry, ground_truth, convention: str, occlusion: str) -> None:
    on_cpu = create_rasterizer("warp", "cpu")
    cases = [(golden_surface(golden_geometry), golden_camera(golden_geometry, name)) for name in ("60", "180", "free")]
    truth = ground_truth
    intrinsics = torch.from_numpy(truth["intrinsics"]).expand(len(truth["depth"]), 3, 3)
    surface = DepthSurface(torch.from_numpy(truth["depth"]), torch.from_numpy(truth["rgb"]), intrinsics)
    cases.append((surface, CameraPath(truth["extrinsics"], truth["intrinsics"], *surface.size)))
    cases.append((synthetic_surface(4, 512, 512), synthetic_camera(4, 512, 512, 120)))
    for surface, camera in cases:
        surface = replace(surface, convention=convention, occlusion=occlusion)
        a = on_cpu.render(surface, camera, with_depth=True)
        b = warp.render(surface, camera, with_depth=True).to("cpu")
        found = overlaps(a.mask, b.mask)
        both = a.mask & b.mask
        differing = float((a.color[both].int() - b.color[both].int()).abs().amax(dim=1).gt(1).float().mean())
        print(f"{convention} {occlusion}: IoU {min(found):.6f}, colours differing {differing:.2e}")
        assert min(found) >= 0.9999
        assert differing < 1e-4
        assert (a.depth.isfinite() == b.depth.isfinite()).float().mean() > 0.9999


def test_the_two_rasterizers_agree_on_what_is_seen(rasterizer) -> None:
    """In our own convention too, fronts, backs and caps: they share no code but the mesh's rules."""
    for occlusion in ("watertight", "open"):
        surface = replace(synthetic_surface(5, 320, 240), occlusion=occlusion)
        camera = synthetic_camera(5, 320, 240, 140)
        a = create_rasterizer("warp", "cpu").render(surface, camera, with_depth=True)
        b = rasterizer.render(surface, camera, with_depth=True).to("cpu")
        # frame 0 is the source camera's: warp finds all its pixels again, nvdiffrast all but those at discontinuities
        agreed = [(x == y).float().mean().item() for x, y in zip(a.mask[1:], b.mask[1:], strict=True)]
        print(f"{rasterizer.name} {occlusion}: {min(agreed):.5f}")
        assert min(agreed) > 0.995
        assert (a.depth[1:].isfinite() == b.depth[1:].isfinite()).float().mean() > 0.999


@pytest.mark.parametrize("occlusion", ["watertight", "open", "thickness"])
def test_the_same_input_gives_the_same_bytes(rasterizer, occlusion) -> None:
    if (rasterizer.name, occlusion) == ("nvdiffrast", "thickness"):
        pytest.skip("nvdiffrast does not know this model")
    surface = replace(synthetic_surface(6, 400, 300).to("cuda"), occlusion=occlusion)
    camera = synthetic_camera(6, 400, 300, 100)
    first = rasterizer.render(surface, camera).to("cpu")
    for _ in range(3):
        again = rasterizer.render(surface, camera).to("cpu")
        assert torch.equal(first.color, again.color) and torch.equal(first.mask, again.mask)
    alone = rasterizer.render(surface.frame_range(3, 4), camera.frames(3, 4)).to("cpu")
    assert torch.equal(first.mask[3], alone.mask[0]) and torch.equal(first.color[3], alone.color[0])


@pytest.mark.parametrize("occlusion", ["watertight", "open", "thickness"])
def test_close_ups_fill_the_queues_and_stay_right(warp, occlusion) -> None:
    """Every face covers hundreds of pixels, some of them cut by the near plane: more pieces than the queue takes."""
    surface = replace(synthetic_surface(2, 96, 64), occlusion=occlusion)
    poses = np.eye(4)[None].repeat(2, 0)
    poses[:, 2, 3] = [-1.9, -2.5]
    camera = CameraPath(poses, intrinsics_matrix(3000, 3000, 400, 300), 800, 600)
    a = create_rasterizer("warp", "cpu").render(surface, camera, with_depth=True)
    b = warp.render(surface, camera, with_depth=True).to("cpu")
    assert (a.mask == b.mask).float().mean() > 0.9999
    assert (a.depth.isfinite() == b.depth.isfinite()).all()


def test_cliffs_at_every_pixel_fill_the_queue_of_stretched_faces_and_stay_right(warp) -> None:
    random = torch.Generator().manual_seed(5)
    surface = replace(synthetic_surface(2, 640, 480), occlusion="thickness")
    surface = replace(surface, depth=torch.rand(2, 480, 640, generator=random) * 9 + 0.5)
    camera = synthetic_camera(2, 640, 480, 25)
    a = create_rasterizer("warp", "cpu").render(surface, camera)
    b = warp.render(surface, camera).to("cpu")
    assert (a.mask == b.mask).float().mean() > 0.9999
    assert (a.color == b.color).float().mean() > 0.9999


def test_masks_held_steady_on_the_gpu_are_the_cpus(warp) -> None:
    clip = replace(synthetic_surface(6, 512, 512), occlusion="thickness", clean=True)
    camera = synthetic_camera(4, 512, 512, 60)
    held = []
    for rasterizer in (create_rasterizer("warp", "cpu"), warp):
        ready = measured(clip, rasterizer.device)
        earlier, own, later = (ready.frame_range(start, start + 4) for start in range(3))
        held += render_in_batches(rasterizer, own, camera, with_depth=True, around=(earlier, later))
    on_cpu, on_gpu = held
    assert (on_cpu.mask != on_cpu.drawn).any()
    assert min(overlaps(on_cpu.mask, on_gpu.mask)) >= 0.9999


def test_coverage_on_the_cpu_is_near_the_gpus(warp) -> None:
    for occlusion in ("watertight", "open", "thickness"):
        surface = replace(synthetic_surface(3, 512, 512), occlusion=occlusion)
        camera = synthetic_camera(3, 512, 512, 50)
        on_gpu = visible_fractions(warp, surface.to("cuda"), camera)
        sparse = sparse_camera(camera)
        parts = [(k, k + 1) for k in range(3)]
        on_cpu = [SimplifiedFrame(surface.frame_range(*k)).visible_fraction(sparse.frames(*k)) for k in parts]
        np.testing.assert_allclose(on_cpu, on_gpu, atol=0.01)


@pytest.mark.parametrize("holes", ["fill", "mark"])
def test_a_view_made_on_the_gpu_is_the_cpus(write_small_scene, tmp_path, holes) -> None:
    scene = Scene.open(write_small_scene(tmp_path / "scene").folder)
    camera = scene.source_camera().frames(2, 3).resized(300, 200)
    aside = camera.world_to_camera.copy()
    aside[0, 0, 3] = -0.8
    request = ShotRequest(scene.digest, replace(camera, world_to_camera=aside), 2, preview=PreviewSettings(holes))
    a, b = (SceneViews(scene, device=device).look(request) for device in ("cpu", "cuda"))
    assert a.seen == pytest.approx(b.seen, abs=1e-4) and 0.3 < a.seen < 0.95
    assert (np.abs(a.image.astype(int) - b.image) <= 1).mean() > 0.999
    again = SceneCoverage(scene, device="cuda").of(request).seen
    assert again == pytest.approx(SceneCoverage(scene, device="cpu").of(request).seen, abs=0.01)


def whole(batches: list[RenderedBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([each.color for each in batches]), torch.cat([each.mask for each in batches])


def test_little_memory_makes_smaller_batches_and_then_a_clear_error(warp) -> None:
    surface, camera = synthetic_surface(24, 512, 512), synthetic_camera(24, 512, 512)
    plenty = list(render_in_batches(warp, surface, camera, batch_frames=24))
    assert len(plenty) == 1 and plenty[0].color.is_pinned()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((100 << 20) / total)
        little = list(render_in_batches(warp, surface, camera, batch_frames=24))
        assert len(little) > 2
        assert all(torch.equal(a, b) for a, b in zip(whole(little), whole(plenty), strict=True))
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((2 << 20) / total)
        with pytest.raises(RenderMemoryError, match=r"too little memory for a single frame of 512 x 512.*device cpu"):
            list(render_in_batches(warp, surface, camera))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_thousand_frames_at_1080p_need_no_more_memory_than_fifty(warp) -> None:
    one = synthetic_surface(1, 1920, 1080)

    def peak(frames: int) -> int:
        surface = DepthSurface(
            one.depth.expand(frames, -1, -1), one.color.expand(frames, -1, -1, -1), one.intrinsics.expand(frames, 3, 3)
        )
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        drawn = sum(
            len(batch.mask)
            for batch in render_in_batches(warp, surface, synthetic_camera(frames, 1920, 1080), batch_frames=4)
        )
        assert drawn == frames
        return torch.cuda.max_memory_allocated()

    assert peak(1000) <= 1.05 * peak(50)


def test_coverage_is_the_full_renders(rasterizer) -> None:
    surface, camera = synthetic_surface(5, 512, 300).to("cuda"), synthetic_camera(5, 512, 300, 50)
    seen = visible_fractions(rasterizer, surface, camera)
    masks = rasterizer.render(surface, camera).mask
    np.testing.assert_allclose(seen, masks.flatten(1).double().mean(dim=1).cpu().numpy(), atol=1e-9)


def test_the_originals_loop_as_we_time_it_gives_the_originals_images(golden_geometry) -> None:
    try:
        context = load_nvdiffrast().RasterizeCudaContext(device="cuda")
    except RasterizerUnavailableError as error:
        pytest.skip(str(error))
    surface = golden_surface(golden_geometry).to("cuda")
    images = render_as_the_original(surface, golden_camera(golden_geometry, "60"), context)
    expected = golden_geometry["render_60"]
    assert (images[1:] == expected[1:]).mean() > 0.999
