"""What is filmed of a scene, from which cameras, and its colours by Cycles: the first half of `make_true_scenes.py`.

Blender's world: z up, units of about a metre. Cameras here are OpenCV world to camera in that world; the files have the
source camera's frame 0 as their world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import radians, tan
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.trajectories import build_path, move
from sample_views import FLIP, set_up_camera

WIDTH, HEIGHT = 240, 180
SAMPLES = 24
# Colours are rounded to this step, which halves the files and is 47 dB from what was rendered.
COLOR_STEP = 4
MOVES = (
    *(f"orbit {degrees}" for degrees in (30, -30, 60, -60, 90)),
    *("dolly_in 0.4", "dolly_out 0.4", "crane 0.5", "zoom_out 1.5"),
)
# Of scenes whose views are whole moves.
WHOLE_MOVES = ("orbit 30", "orbit 60", "orbit 90", "dolly_in 0.4", "crane 0.5")

Vector = tuple[float, float, float]
Pose = Callable[[float], None]


@dataclass(frozen=True)
class FilmedScene:
    """A scene, the clip of it, and the new views whose truth is kept.

    Attributes:
        name: of its file.
        build: fills the empty file, and returns what moves everything to its place at a time in [0, 1].
        eye: of the source camera in frame 0.
        target: what it looks at, the pivot of moves.
        travel: by what the source camera has moved at the last frame, still looking at the target.
        frames: of the clip.
        field_of_view: across the width, degrees.
        moves: each a preset of `ex4d_core.trajectories` and its amount; the view is where it ends. They start from
            frames spread over the clip.
        lit: whether lamps light it, so that colours need denoising; else every surface emits its own colour, which is
            the same from everywhere.
        whole: whether views are every frame of the moves, each of its frame of the clip, not their ends alone.
    """

    name: str
    build: Callable[[], Pose]
    eye: Vector
    target: Vector
    travel: Vector = (0.0, 0.0, 0.0)
    frames: int = 5
    field_of_view: float = 55.0
    moves: tuple[str, ...] = MOVES
    lit: bool = False
    whole: bool = False

    @property
    def distance(self) -> float:
        """Of the target from the source camera in frame 0."""
        return float(np.linalg.norm(np.subtract(self.target, self.eye)))

    def time(self, frame: int) -> float:
        """The scene's time in a frame, 0 in the first, 1 in the last."""
        return frame / max(1, self.frames - 1)

    def source_camera(self, width: int = WIDTH, height: int = HEIGHT) -> CameraPath:
        """The camera of every frame of the clip."""
        time = np.array([self.time(frame) for frame in range(self.frames)])
        eyes = np.array(self.eye) + time[:, None] * np.array(self.travel)
        focal = width / 2 / tan(radians(self.field_of_view) / 2)
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return CameraPath(look_at(eyes, np.array(self.target), down=(0.0, 0.0, -1.0)), intrinsics, width, height)

    def views(self, width: int = WIDTH, height: int = HEIGHT) -> list[tuple[str, int, CameraPath]]:
        """(name, frame, camera of one frame) of each view."""
        source, views = self.source_camera(width, height), []
        for index, name in enumerate(self.moves):
            first = 0 if self.whole else index * (self.frames - 1) // max(1, len(self.moves) - 1)
            preset, amount = name.split()
            pivot = float(np.linalg.norm(source.camera_to_world[first, :3, 3] - np.array(self.target)))
            length = self.frames if self.whole else 2
            path = build_path(move(preset, float(amount)), length, source.intrinsics[first], width, height, pivot)
            for step, frame in enumerate(range(self.frames) if self.whole else [first], start=0 if self.whole else -1):
                pose = path.world_to_camera[step] @ source.world_to_camera[frame]
                views.append((name, frame, CameraPath(pose[None], path.intrinsics[step], width, height)))
        return views


def set_up(scene: FilmedScene) -> Pose:
    """Build a scene in an empty file, with its camera and its settings."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    pose = scene.build()
    set_up_camera()
    cycles = bpy.context.scene.cycles
    cycles.samples, cycles.use_denoising, cycles.seed = SAMPLES, scene.lit, 1
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    return pose


def film(camera: CameraPath, frame: int, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of one frame of a camera, rendered to a PNG at ``path`` on the way."""
    scene: Any = bpy.context.scene
    scene.camera.matrix_world = Matrix((camera.camera_to_world[frame] @ FLIP).tolist())
    lens = scene.camera.data
    lens.sensor_fit, lens.lens = "HORIZONTAL", lens.sensor_width * camera.intrinsics[frame, 0, 0] / camera.width
    scene.render.resolution_x, scene.render.resolution_y = camera.size
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGB"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    picture = bpy.data.images.load(str(path))
    pixels = np.empty(camera.width * camera.height * 4, np.float32)
    picture.pixels.foreach_get(pixels)
    bpy.data.images.remove(picture)
    color = np.round(pixels.reshape(camera.height, camera.width, 4)[::-1, :, :3] * 255)
    return np.clip(np.round(color / COLOR_STEP) * COLOR_STEP, 0, 255).astype(np.uint8)
