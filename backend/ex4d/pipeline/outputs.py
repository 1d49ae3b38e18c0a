"""Outputs of a render: arrays in memory, movies in a folder, or one .npz."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.media import VideoWriter
from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d.pipeline.render import render_shot
from ex4d.progress import Progress, ignore_progress
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import RenderSettings

STAGE = "render"


@dataclass(frozen=True, eq=False)
class Views:
    """A scene as new cameras see it, in memory.

    Attributes:
        color: (T, H, W, 3) uint8 sRGB, black where nothing was seen.
        mask: (T, H, W) bool, true where the footage was seen.
        depth: (T, H, W) float32 along the new cameras' z, scene units; infinite where there is no surface.
        camera: the cameras.
        fps: frame rate of the footage.
    """

    color: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    camera: CameraPath
    fps: Fraction

    def __len__(self) -> int:
        return len(self.color)

    @property
    def visible_fraction(self) -> np.ndarray:
        """(T,) float64, share of each frame that the footage saw, 0 to 1."""
        return self.mask.mean(axis=(1, 2))

    def save(self, path: str | Path, name: str = "view") -> None:
        """Write color_NAME.mp4, mask_NAME.mp4 and camera_NAME.npz into a folder, or everything into one .npz.

        Args:
            path: a folder, or a file that ends in .npz.

        Raises:
            MediaError: a file cannot be written.
        """
        path = Path(path)
        if path.suffix == ".npz":
            _save_arrays(path, self.color, self.mask)
            return
        _write_movies(path, name, self.camera, self.fps, zip(self.color, self.mask, strict=True))


@dataclass(frozen=True)
class RenderedMovies:
    """Movies of a render.

    Attributes:
        color, mask, camera: the files.
        visible_fraction: (T,) float64, share of each frame that the footage saw, 0 to 1.
    """

    color: Path
    mask: Path
    camera: Path
    visible_fraction: np.ndarray


def render_views(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    *,
    first_frame: int = 0,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
) -> Views:
    """Render a camera path into memory; see `ex4d.pipeline.render.render_shot`.

    Args:
        progress: called with the stage `STAGE`, frames done, and frames in all.
    """
    color = np.empty((len(camera), camera.height, camera.width, 3), np.uint8)
    mask, depth = np.empty(color.shape[:3], bool), np.empty(color.shape[:3], np.float32)
    for frame in render_shot(scene, camera, settings, first_frame=first_frame, device=device, machine=machine):
        color[frame.index], mask[frame.index], depth[frame.index] = frame.color, frame.mask, frame.depth
        progress(STAGE, frame.index + 1, len(camera))
    return Views(color, mask, depth, camera, scene.manifest.fps)


def render_movies(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    folder: Path,
    name: str,
    *,
    first_frame: int = 0,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
) -> RenderedMovies:
    """Render into ``color_NAME.mp4``, ``mask_NAME.mp4`` and ``camera_NAME.npz``: all three are written, or none.

    Memory does not depend on the number of frames. Errors and arguments as `render_views`.

    Raises:
        MediaError: a file cannot be written.
    """
    rendered = render_shot(scene, camera, settings, first_frame=first_frame, device=device, machine=machine)
    frames = ((frame.color, frame.mask) for frame in rendered)
    return _write_movies(folder, name, camera, scene.manifest.fps, frames, progress)


def _save_arrays(path: Path, color: np.ndarray, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, translate_write_errors(path), open(partial, "wb") as file:
        np.savez_compressed(file, color=color, mask=mask, coverage=mask.mean(axis=(1, 2)))


def _write_movies(
    folder: Path,
    name: str,
    camera: CameraPath,
    fps: Fraction,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Progress = ignore_progress,
) -> RenderedMovies:
    folder.mkdir(parents=True, exist_ok=True)
    color_path, mask_path = (folder / f"{kind}_{name}.mp4" for kind in ("color", "mask"))
    camera_path = folder / f"camera_{name}.npz"
    visible = []
    with (
        atomic_write(camera_path) as partial,
        VideoWriter(color_path, camera.width, camera.height, fps) as color_movie,
        VideoWriter(mask_path, camera.width, camera.height, fps) as mask_movie,
    ):
        for color, mask in frames:
            color_movie.write(color)
            mask_movie.write(mask)
            visible.append(mask.mean())
            progress(STAGE, len(visible), len(camera))
        # All three are whole before the first one gets its name: a full disk leaves no mask without its colour.
        with translate_write_errors(camera_path):
            camera.save(partial)
        mask_movie.finish()
        color_movie.finish()
    return RenderedMovies(color_path, mask_path, camera_path, np.array(visible))
