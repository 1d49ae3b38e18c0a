"""The "centered" convention against what a camera beside the source truly sees: scene rendered and ray-cast apart."""

from __future__ import annotations

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import create_rasterizer
from ex4d_core.cameras import CameraPath


def test_seen_pixels_are_true_and_few_are_falsely_seen(ground_truth, psnr) -> None:
    truth = ground_truth
    moved = np.abs(truth["extrinsics"] - np.eye(4)).max(axis=(1, 2)) > 1e-6
    depth, color = torch.from_numpy(truth["depth"][moved]), torch.from_numpy(truth["rgb"][moved])
    count, height, width = depth.shape
    surface = DepthSurface(depth, color, torch.from_numpy(truth["intrinsics"]).expand(count, 3, 3))
    camera = CameraPath(truth["extrinsics"][moved], truth["intrinsics"], width, height)

    frames = create_rasterizer("warp", "cpu").render(surface, camera)

    seen, visible = frames.mask.numpy(), truth["true_visible"][moved]
    ratio = psnr(frames.color.numpy(), truth["true_rgb"][moved], seen & visible)
    false_seen, missed = (seen & ~visible).mean(), (visible & ~seen).mean()
    print(f"{count} frames: PSNR {ratio:.2f} dB, false seen {false_seen:.2%}, missed {missed:.2%}")
    assert ratio >= 26.0
    assert false_seen <= 0.004
    assert missed <= 0.19


def test_the_source_camera_gives_the_true_scene_back(ground_truth) -> None:
    truth = ground_truth
    depth, color = torch.from_numpy(truth["depth"]), torch.from_numpy(truth["rgb"])
    count, height, width = depth.shape
    surface = DepthSurface(depth, color, torch.from_numpy(truth["intrinsics"]).expand(count, 3, 3))
    camera = CameraPath(np.eye(4)[None].repeat(count, 0), truth["intrinsics"], width, height)

    frames = create_rasterizer("warp", "cpu").render(surface, camera)

    assert frames.mask.all()
    assert torch.equal(frames.color, color)
