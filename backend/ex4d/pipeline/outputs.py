"""Outputs of a render: arrays in memory, movies in a folder, or one .npz."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.media import BackgroundVideoWriter
from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d.pipeline.render import nothing_seen_note, shows_nothing
from ex4d.pipeline.stereo import render_eyes
from ex4d.pipeline.targets import files_of, require_file, require_folder_name
from ex4d.progress import Progress, ignore_progress
from ex4d_core import __version__
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.stereo import StereoSettings

STAGE = "render"
_ONE_EYE = StereoSettings()


@dataclass(frozen=True, eq=False)
class Views:
    """A scene as new cameras see it, in memory.

    Attributes:
        color: (T, H, W, 3) uint8 sRGB, black where nothing was seen or remembered; where a part of the pixel was seen,
            the colour of that.
        mask: (T, H, W) bool, true where the footage was seen: at least half of the pixel.
        depth: (T, H, W) float32 along the new cameras' z, scene units; infinite where there is no surface.
        camera: the cameras.
        fps: frame rate of the footage.
        alpha: (T, H, W) uint8, the share of each pixel that was seen, of 255; 255 or 0 with one sample of each pixel.
        remembered: (T, H, W) bool, true where other frames of the clip saw what this one did not; None without the
            clip's memory.
        stereo: how the images have both eyes, side by side in a W of twice the width; depth is the distance along rays
            in "vr180".
    """

    color: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    camera: CameraPath
    fps: Fraction
    alpha: np.ndarray
    remembered: np.ndarray | None = None
    stereo: StereoSettings = _ONE_EYE

    def __len__(self) -> int:
        return len(self.color)

    @property
    def visible_fraction(self) -> np.ndarray:
        """(T,) float64, share of each frame that the footage saw, 0 to 1."""
        return self.alpha.mean(axis=(1, 2)) / 255

    def save(self, path: str | Path, name: str = "view", *, overwrite: bool = False) -> None:
        """Write color_NAME.mp4, mask_NAME.mp4 and camera_NAME.npz into a folder, or everything into one .npz.

        With the clip's memory there is a remembered_NAME.mp4, too; an .npz of two eyes has their depth.

        Args:
            path: a folder, or a file that ends in .npz.
            overwrite: replace files of an earlier render.

        Raises:
            OutputError: a file exists and is not to be replaced, or is not of ex4d, or the path has another ending.
            MediaError: a file cannot be written.
        """
        path = Path(path)
        require_render_target(path, name, overwrite=overwrite)
        if is_arrays(path):
            _save_arrays(path, self)
            return
        frames = (
            (self.color[k], self.alpha[k], None if self.remembered is None else self.remembered[k])
            for k in range(len(self))
        )
        remembers = self.remembered is not None
        _write_movies(path, name, self.camera, self.fps, frames, remembers=remembers, stereo=self.stereo)


@dataclass(frozen=True)
class RenderedMovies:
    """Movies of a render.

    Attributes:
        color, mask, camera: the files.
        visible_fraction: (T,) float64, share of each frame that the footage saw, 0 to 1.
        remembered: the file, with the clip's memory.
        remembered_fraction: (T,) float64, share of each frame that only other frames of the clip saw.
    """

    color: Path
    mask: Path
    camera: Path
    visible_fraction: np.ndarray
    remembered: Path | None
    remembered_fraction: np.ndarray


def is_arrays(path: Path) -> bool:
    """Whether a render into this path is one file of arrays, and not a folder of movies."""
    return path.suffix.lower() == ".npz"


def require_render_target(path: Path, name: str, *, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Check that a render may be written, before it begins.

    Args:
        path: a folder, or a file that ends in .npz.
        name: of the render in the folder, as in `render_movies`.
        inputs: what it is made from.
        overwrite: replace files of an earlier render.

    Raises:
        OutputError: a file is an input, exists and is not to be replaced, or is not of ex4d; or the path has another
            ending.
    """
    if is_arrays(path):
        require_file(path, inputs=inputs, overwrite=overwrite)
        return
    require_folder_name(path, "a folder of H.264 .mp4 movies, or one lossless .npz")
    inputs = list(inputs)
    for file in (*_movie_paths(path, name), _remembered_path(path, name)):
        require_file(file, inputs=inputs, overwrite=overwrite)


def render_views(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    *,
    stereo: StereoSettings = _ONE_EYE,
    first_frame: int = 0,
    source_frames: Sequence[int] | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> Views:
    """Render a camera path into memory; see `ex4d.pipeline.render.render_shot`.

    Args:
        stereo: of any layout but "files", which is two renders.
        progress: called with the stage `STAGE`, frames done, and frames in all.
        note: called with sentences about what the user should know of the render.
    """
    width, height = stereo.frame_size(camera)
    color = np.empty((len(camera), height, width, 3), np.uint8)
    mask, depth = np.empty(color.shape[:3], bool), np.empty(color.shape[:3], np.float32)
    alpha = np.empty(color.shape[:3], np.uint8)
    remembered = np.zeros(mask.shape, bool) if settings.remember else None
    how = {"first_frame": first_frame, "source_frames": source_frames, "device": device, "machine": machine}
    for frame in render_eyes(scene, camera, settings, stereo, **how, note=note):
        color[frame.index], mask[frame.index], depth[frame.index] = frame.color, frame.mask, frame.depth
        alpha[frame.index] = frame.soft_mask
        if remembered is not None:
            remembered[frame.index] = frame.remembered
        progress(STAGE, frame.index + 1, len(camera))
    if shows_nothing(alpha[0].mean() / 255):
        note(nothing_seen_note())
    return Views(color, mask, depth, camera, scene.manifest.fps, alpha, remembered, stereo)


def render_movies(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    folder: Path,
    name: str,
    *,
    stereo: StereoSettings = _ONE_EYE,
    first_frame: int = 0,
    source_frames: Sequence[int] | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    inputs: Iterable[Path] = (),
    overwrite: bool = False,
) -> RenderedMovies:
    """Render into ``color_NAME.mp4``, ``mask_NAME.mp4`` and ``camera_NAME.npz``: all three are written, or none.

    With the clip's memory ``remembered_NAME.mp4`` is written, too. How much memory this takes does not depend on the
    number of frames. Errors and arguments as `render_views`.

    Args:
        inputs: files that the camera was made from, besides the scene.
        overwrite: replace files of an earlier render.

    Raises:
        OutputError: as `require_render_target`.
        MediaError: a file cannot be written.
    """
    require_render_target(folder, name, inputs=[*inputs, *files_of(scene)], overwrite=overwrite)
    how = {"first_frame": first_frame, "source_frames": source_frames, "device": device, "machine": machine}
    rendered = render_eyes(scene, camera, settings, stereo, **how, note=note)
    frames = ((frame.color, frame.soft_mask, frame.remembered) for frame in rendered)
    fps, remembers = scene.manifest.fps, bool(settings.remember)
    movies = _write_movies(folder, name, camera, fps, frames, progress, remembers=remembers, stereo=stereo)
    if shows_nothing(movies.visible_fraction[0]):
        note(nothing_seen_note())
    return movies


def _save_arrays(path: Path, views: Views) -> None:
    arrays = {"color": views.color, "mask": views.mask, "alpha": views.alpha, "coverage": views.visible_fraction}
    if views.remembered is not None:
        arrays["remembered"] = views.remembered
    if views.stereo.is_on:
        arrays["depth"] = views.depth
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, translate_write_errors(path), open(partial, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _movie_paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Colour, mask and camera of a render."""
    return folder / f"color_{name}.mp4", folder / f"mask_{name}.mp4", folder / f"camera_{name}.npz"


def _remembered_path(folder: Path, name: str) -> Path:
    """Where other frames of the clip saw what a render's own did not."""
    return folder / f"remembered_{name}.mp4"


def _write_movies(
    folder: Path,
    name: str,
    camera: CameraPath,
    fps: Fraction,
    frames: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    progress: Progress = ignore_progress,
    *,
    remembers: bool,
    stereo: StereoSettings = _ONE_EYE,
) -> RenderedMovies:
    """Write frames of colour and soft mask."""
    folder.mkdir(parents=True, exist_ok=True)
    color_path, mask_path, camera_path = _movie_paths(folder, name)
    width, height = stereo.frame_size(camera)
    how = {"width": width, "height": height, "fps": fps, "pixel_aspect": stereo.pixel_aspect(camera)}
    how |= {"metadata": {"ex4d_version": __version__}, "stereo": stereo.kind_of_movie}
    remembered_path = _remembered_path(folder, name)
    visible, recalled = [], []
    with (
        atomic_write(camera_path) as partial,
        BackgroundVideoWriter(color_path, **how) as color_movie,
        BackgroundVideoWriter(mask_path, **how) as mask_movie,
        BackgroundVideoWriter(remembered_path, **how) if remembers else nullcontext() as remembered_movie,
    ):
        for color, soft_mask, remembered in frames:
            color_movie.write(color)
            mask_movie.write(soft_mask)
            visible.append(soft_mask.mean() / 255)
            recalled.append(0.0 if remembered is None else remembered.mean())
            if remembered_movie is not None and remembered is not None:
                remembered_movie.write(remembered)
            progress(STAGE, len(visible), len(camera))
        # All are whole before the first one gets its name: a full disk leaves no mask without its colour.
        with translate_write_errors(camera_path):
            camera.save(partial)
        if remembered_movie is not None:
            remembered_movie.finish()
        mask_movie.finish()
        color_movie.finish()
    written = remembered_path if remembers else None
    return RenderedMovies(color_path, mask_path, camera_path, np.array(visible), written, np.array(recalled))
