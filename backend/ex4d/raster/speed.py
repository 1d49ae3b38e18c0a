"""A quick speed measurement of a rasterizer, and the synthetic shot that it and the benchmarks draw."""

from __future__ import annotations

import time

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.batches import render_in_batches
from ex4d.raster.rasterizer import Rasterizer
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.render_settings import Convention

SUBJECT_DISTANCE = 3.0


def synthetic_frame(index: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Color (H, W, 3) uint8 and depth (H, W) float32: a moving ball and thin posts before a tilted, textured wall."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wall = 6 + 2 * y / height
    post = (x * 24 / width) % 1
    wall = np.where((post < 0.2) & (y > 0.55 * height), 4.5, wall)
    pattern = 127 + 100 * np.sin(x * 57 / width) * np.cos(y * 46 / height)
    radius = np.hypot(x - width * (0.5 + 0.2 * np.sin(index / 8)), y - height / 2) / (0.2 * width)
    depth = np.where(radius < 1, SUBJECT_DISTANCE - np.sqrt(np.clip(1 - radius**2, 0, 1)), wall)
    color = np.stack([pattern, 255 - pattern, np.where(radius < 1, 220.0, 90.0)], axis=2)
    return color.astype(np.uint8), depth.astype(np.float32)


def synthetic_surface(frames: int, width: int, height: int, convention: Convention = "centered") -> DepthSurface:
    """The first frames of the synthetic shot, on the CPU; the camera stands still at the origin."""
    colors, depths = zip(*(synthetic_frame(index, width, height) for index in range(frames)), strict=True)
    color, depth = np.stack(colors), np.stack(depths)
    intrinsics = torch.from_numpy(intrinsics_matrix(width, width, width / 2, height / 2))
    return DepthSurface(
        torch.from_numpy(depth), torch.from_numpy(color), intrinsics.expand(frames, 3, 3), convention=convention
    )


def synthetic_camera(frames: int, width: int, height: int, degrees: float = 60.0) -> CameraPath:
    """An arc of ``degrees`` around the ball, starting at the source camera."""
    angle = np.radians(np.linspace(0, degrees, frames))
    poses = np.repeat(np.eye(4)[None], frames, axis=0)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
    eye = SUBJECT_DISTANCE * np.stack([-np.sin(angle), np.zeros(frames), 1 - np.cos(angle)], axis=1)
    poses[:, :3, 3] = -np.einsum("tij,tj->ti", poses[:, :3, :3], eye)
    return CameraPath(poses, intrinsics_matrix(width, width, width / 2, height / 2), width, height)


def quick_speed(rasterizer: Rasterizer) -> float:
    """Milliseconds per frame of 512 x 512 pixels, copies to host memory included: the best of three runs."""
    frames = 32 if rasterizer.device.type == "cuda" else 2
    surface = synthetic_surface(frames, 512, 512).to(rasterizer.device)
    camera = synthetic_camera(frames, 512, 512)

    def seconds() -> float:
        start = time.perf_counter()
        for _ in render_in_batches(rasterizer, surface, camera):
            pass
        return time.perf_counter() - start

    seconds()  # warm-up
    return 1000 * min(seconds() for _ in range(3)) / frames
