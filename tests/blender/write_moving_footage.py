"""Writes what a moving camera filmed of a small world that stands still, with depth, and with the camera as files.

Run by the backend's Python, which has a video encoder:

    python write_moving_footage.py FOLDER FRAMES WIDTH HEIGHT

FOLDER gets clip.mp4, depth.npz, transforms.json (NeRF) and colmap/ (COLMAP's text files). The world: a slanted wall,
x - 4 z + 16 = 0, with stripes, and a card at z = 2.5 before it, in the axes of the first frame's camera.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.media import VideoWriter

WALL_NORMAL, WALL_OFFSET = np.array([1.0, 0.0, -4.0]), 16.0
CARD_DEPTH = 2.5


def camera_to_world(time: float) -> np.ndarray:
    """(4, 4) of a camera that trucks to the right, climbs, and turns back towards the card; OpenCV axes."""
    angle = -0.25 * time
    matrix = np.eye(4)
    matrix[0, 0] = matrix[2, 2] = np.cos(angle)
    matrix[0, 2], matrix[2, 0] = np.sin(angle), -np.sin(angle)
    matrix[:3, 3] = time * np.array([0.7, -0.2, 0.3])
    return matrix


def filmed(pose: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth along z (H, W) float32; the lens is as wide as the picture."""
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    rays = np.stack([x / width, y / width, np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    wall = -(WALL_OFFSET + WALL_NORMAL @ eye) / (rays @ WALL_NORMAL)
    card = (CARD_DEPTH - eye[2]) / rays[..., 2]
    on_card = (np.abs((eye + card[..., None] * rays)[..., :2]) < (0.4, 0.3)).all(axis=-1)
    depth = np.where(on_card, card, wall)
    place = eye + depth[..., None] * rays
    stripes = np.floor(place[..., 0] * 2) % 2
    color = np.stack([70 + 100 * stripes, 110 + 40 * np.tanh(place[..., 1]), np.full_like(depth, 120)], axis=-1)
    color[on_card] = (230, 200, 60)
    return color.astype(np.uint8), depth.astype(np.float32)


def quaternion(rotation: np.ndarray) -> list[float]:
    """w, x, y, z of a turn about y."""
    angle = np.arctan2(rotation[0, 2], rotation[0, 0])
    return [float(np.cos(angle / 2)), 0.0, float(np.sin(angle / 2)), 0.0]


def write(folder: Path, frames: int, width: int, height: int) -> None:
    poses = [camera_to_world(frame / (frames - 1)) for frame in range(frames)]
    depths = []
    folder.mkdir(parents=True, exist_ok=True)
    with VideoWriter(folder / "clip.mp4", width, height, Fraction(24), crf=4) as movie:
        for pose in poses:
            color, depth = filmed(pose, width, height)
            movie.write(color)
            depths.append(depth)
    np.savez_compressed(folder / "depth.npz", depth=np.stack(depths))
    to_opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    nerf = {"w": width, "h": height, "fl_x": width, "cx": width / 2, "cy": height / 2}
    nerf["frames"] = [
        {"file_path": f"images/{index}.png", "transform_matrix": (pose @ to_opengl).tolist()}
        for index, pose in enumerate(poses)
    ]
    (folder / "transforms.json").write_text(json.dumps(nerf))
    colmap = folder / "colmap"
    colmap.mkdir(exist_ok=True)
    (colmap / "cameras.txt").write_text(f"1 SIMPLE_PINHOLE {width} {height} {width} {width / 2} {height / 2}\n")
    lines = []
    for index, pose in enumerate(poses):
        inverse = np.linalg.inv(pose)
        values = [*quaternion(inverse[:3, :3]), *inverse[:3, 3].tolist()]
        lines += [f"{index + 1} {' '.join(map(str, values))} 1 {index}.png", ""]
    (colmap / "images.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
