"""A clip of a red ball before a textured wall, with exact depth, for tests of what its frames know of each other."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ex4d_core.cameras import CameraPath, intrinsics_matrix, look_at
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import SceneManifest

FRAMES, WIDTH, HEIGHT = 12, 96, 64
LENS = intrinsics_matrix(90, 90, WIDTH / 2, HEIGHT / 2)
BALL, RADIUS, WALL = np.array([0.2, 0.1, 4.0]), 0.8, 6.0


def filmed(pose: np.ndarray, ball: np.ndarray = BALL, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Colour and exact depth of a plain red ball before a textured wall, by one ray for each pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(x - LENS[0, 2]) / LENS[0, 0], (y - LENS[1, 2]) / LENS[1, 1], np.ones_like(x)], axis=2)
    turned, eye = rays @ pose[:3, :3], -pose[:3, :3].T @ pose[:3, 3]
    wall = (WALL - eye[2]) / turned[..., 2]
    a, b, c = (turned**2).sum(axis=2), turned @ (eye - ball), ((eye - ball) ** 2).sum() - RADIUS**2
    root = b * b - a * c
    near = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth = np.minimum(wall, near)
    color = 127 + 110 * np.sin(2 * (eye + depth[..., None] * turned) + np.array([0, 2, 4]) + shift)
    color[near < wall] = [250, 20, 20]
    return color.astype(np.uint8), depth.astype(np.float32)


def travelling(frames: int = FRAMES) -> CameraPath:
    """Past the ball, which stays in view: what it hides in one frame is seen in others."""
    eyes = np.linspace(-1, 1, frames)[:, None] * [1.0, 0.2, 0.0]
    return CameraPath(look_at(eyes, np.array([0, 0, 5.0])), LENS, WIDTH, HEIGHT)


def standing(frames: int = FRAMES) -> CameraPath:
    return CameraPath(np.repeat(np.eye(4)[None], frames, axis=0), LENS, WIDTH, HEIGHT)


def written(folder, camera: CameraPath, images: list[tuple[np.ndarray, np.ndarray]]) -> Scene:
    with SceneWriter(folder) as writer:
        for name, values in (("color", [image for image, _ in images]), ("depth", [depth for _, depth in images])):
            stacked = np.stack(values)
            writer.array(name, stacked.shape, stacked.dtype).write(stacked)
        camera.save(writer.path("source_camera"))
        depth = np.stack([depth for _, depth in images])
        limits = float(depth.min()), float(depth.max())
        manifest = SceneManifest("clip", len(images), WIDTH, HEIGHT, Fraction(24), "centered", limits, 5.0)
        writer.finish(manifest)
    return Scene.open(folder)


def beside(scene: Scene, frame: int, distance: float = 0.4) -> CameraPath:
    """One camera, some way to the right of the one that filmed a frame."""
    pose = scene.source_camera().world_to_camera[frame].copy()
    pose[0, 3] -= distance
    return CameraPath(pose[None], LENS, WIDTH, HEIGHT)
