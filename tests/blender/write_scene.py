"""Writes the scene package of a small made-up clip: a card that moves before a slanted wall.

Run by the backend's Python, which has torch and a video encoder; the tests themselves run in Blender's.

    python write_scene.py FOLDER FRAMES WIDTH HEIGHT [still|moving|floor|ground]

"floor" puts a floor before the wall, as a camera sees it that is held at an angle, 1.5 units above it.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ex4d.media import VideoWriter
from ex4d.mesh import Pc2Writer, build_dw_mesh, grid_topology
from ex4d_core.cameras import CameraPath, intrinsics_matrix, invert_rigid
from ex4d_core.pivots import middle_distance
from ex4d_core.scene import SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.trajectories import SUBJECT_BEHIND_NEAREST

CARD_DEPTH, WALL_DEPTH = 2.0, 4.0


def picture_and_depth(frame: int, frames: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth (H, W) float32; the wall's red tells the frame, its green left from right."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    color = np.stack([np.full_like(x, 40 + 160 * frame / frames), 40 + 150 * x, 40 + 150 * y], axis=-1)
    depth = WALL_DEPTH + x
    left = 0.2 + 0.3 * frame / frames
    card = (x > left) & (x < left + 0.25) & (y > 0.3) & (y < 0.7)
    stripes = (np.floor(x * 16) + np.floor(y * 16)) % 2 == 0
    color[card] = np.where(stripes[card][:, None], (240, 240, 240), (30, 30, 30))
    depth[card] = CARD_DEPTH
    return color.astype(np.uint8), depth.astype(np.float32)


# Where the floor's up is for the camera: it looks down by about 17 degrees, and is tilted to one side by 6.
FLOOR_NORMAL = np.array([0.1, -0.95, -0.3]) / np.linalg.norm([0.1, -0.95, -0.3])
FLOOR_BELOW = 1.5


def with_floor(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) with the floor where it is nearer; the lens is as wide as the picture."""
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    down = -(np.stack([x / width, y / width, np.ones_like(x)], axis=-1) @ FLOOR_NORMAL)
    floor = np.where(down > 1e-3, FLOOR_BELOW / np.maximum(down, 1e-3), np.inf)
    return np.minimum(depth, floor).astype(np.float32)


def with_ground(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) with level ground before a sky; its horizon is in the middle row. The card stays where it is."""
    below = np.arange(len(depth)) + 0.5 - len(depth) / 2
    far = np.where(below > 0, 0.25 * depth.shape[1] / np.maximum(below, 0.5), 70.0)[:, None]
    return np.where(depth == CARD_DEPTH, np.minimum(depth, far), far).astype(np.float32)


def source_camera(frames: int, width: int, height: int, moving: bool) -> CameraPath:
    """A still camera with centred lens, or one that trucks, turns and zooms, with an off-centre, stretched lens."""
    camera_to_world = np.repeat(np.eye(4)[None], frames, axis=0)
    if not moving:
        return CameraPath(camera_to_world, intrinsics_matrix(width, width, width / 2, height / 2), width, height)
    time = np.linspace(0.0, 1.0, frames)
    angle = 0.2 * time
    camera_to_world[:, 0, 0] = camera_to_world[:, 2, 2] = np.cos(angle)
    camera_to_world[:, 0, 2], camera_to_world[:, 2, 0] = np.sin(angle), -np.sin(angle)
    camera_to_world[:, :3, 3] = time[:, None] * [0.3, -0.1, 0.2]
    lens = np.stack(
        [intrinsics_matrix(width * (1 + t), 1.25 * width * (1 + t), 0.45 * width, 0.55 * height) for t in time]
    )
    return CameraPath(invert_rigid(camera_to_world), lens, width, height)


def write_scene(folder: Path, frames: int, width: int, height: int, kind: str = "still") -> None:
    camera = source_camera(frames, width, height, kind == "moving")
    faces, uvs, cap_faces = grid_topology(height, width)
    low, high, middle = np.inf, 0.0, 0.0
    with SceneWriter(folder) as writer:
        color_file = writer.array("color", (frames, height, width, 3), np.uint8)
        depth_file = writer.array("depth", (frames, height, width), np.float32)
        with (
            VideoWriter(writer.path("footage"), width, height, Fraction(24), crf=4) as movie,
            Pc2Writer(writer.path("positions"), len(uvs), frames) as positions,
        ):
            for frame in range(frames):
                color, depth = picture_and_depth(frame, frames, width, height)
                depth = {"floor": with_floor, "ground": with_ground}.get(kind, np.asarray)(depth)
                mesh = build_dw_mesh(
                    torch.from_numpy(depth[None]),
                    torch.from_numpy(color[None]),
                    torch.from_numpy(camera.intrinsics[frame : frame + 1].copy()),
                    camera_to_world=torch.from_numpy(camera.camera_to_world[frame : frame + 1].copy()),
                )
                movie.write(color)
                color_file.write(color)
                depth_file.write(depth)
                positions.append(mesh.vertices)
                if frame == 0:
                    middle = middle_distance(depth)
                low, high = min(low, float(depth.min())), max(high, float(depth.max()))
        np.savez(writer.path("topology"), faces=faces.numpy(), uvs=uvs.numpy(), cap_faces=np.int64(cap_faces))
        camera.save(writer.path("source_camera"))
        writer.finish(
            SceneManifest(
                name="card and wall",
                frames=frames,
                width=width,
                height=height,
                fps=Fraction(24),
                convention="centered",
                depth_range=(low, high),
                subject_distance=CARD_DEPTH + SUBJECT_BEHIND_NEAREST,
                middle_distance=middle,
            )
        )


if __name__ == "__main__":
    write_scene(Path(sys.argv[1]), *map(int, sys.argv[2:5]), *sys.argv[5:6])
