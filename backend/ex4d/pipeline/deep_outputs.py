"""Renders of more than 8 bits, written for compositing: EXR and PNG sequences, and movies of 10 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.media import BackgroundVideoWriter, VideoWriter
from ex4d.media.colour_management import SRGB, Conversion
from ex4d.media.deep_video_writer import MOVIES
from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d.pipeline.deep_files import DeepFiles, DeepPicture
from ex4d.pipeline.outputs import STAGE
from ex4d.pipeline.render import nothing_seen_note, settings_for_deep_colors, shows_nothing
from ex4d.pipeline.stereo import render_eyes
from ex4d.pipeline.targets import files_of, require_file, require_folder_name
from ex4d.progress import Progress, ignore_progress
from ex4d.raster import RenderedFrame
from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import OutputSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.source_frames import shown_frames
from ex4d_core.stereo import StereoSettings

_ONE_EYE = StereoSettings()


@dataclass(frozen=True)
class DeepRender:
    """Files of a render.

    Attributes:
        color: the images in order, or one movie.
        mask: a movie beside one without alpha, else None.
        camera: the file.
        space: colour space of what was written.
        visible_fraction: (T,) float64, share of each frame that the footage saw, 0 to 1.
        remembered: a movie of where other frames of the clip saw what these did not, with the clip's memory; None in
            EXR files, which have a channel for it.
        remembered_fraction: (T,) float64, share of each frame that only other frames of the clip saw.
    """

    color: tuple[Path, ...]
    mask: Path | None
    camera: Path
    space: str
    visible_fraction: np.ndarray
    remembered: Path | None
    remembered_fraction: np.ndarray


def render_deep(
    scene: Scene,
    camera: CameraPath,
    settings: RenderSettings,
    output: OutputSettings,
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
) -> DeepRender:
    """Render a scene's half floats; one frame is in memory at a time, and images are whole before the next one begins.

    EXR files have premultiplied colour with the soft mask as alpha, and depth along the new camera's z, of VR180 along
    the ray; other files with alpha have straight colour. What is neither seen nor remembered is 0.

    Args:
        output: of any format but "mp4".
        folder: for the files.
        name: of the shot.
        stereo: of any layout but "files", which is two renders. Both eyes are side by side in every image.
        inputs: files that the camera was made from, besides the scene.
        overwrite: replace files of an earlier render.
        first_frame, source_frames, device, machine, progress, note: as of `ex4d.pipeline.outputs.render_movies`.

    Raises:
        SceneError: the scene has 8 bits.
        ColourSpaceError: the output space is unknown, or OpenColorIO is needed and not installed.
        OutputError: a file exists and is not to be replaced, or is not of ex4d.
        MediaError: a file cannot be written.
        RequestError: as `render_shot`.
    """
    settings = settings_for_deep_colors(settings)
    scene.deep_color()  # refused now where there is none
    space = output.output_space or (scene.manifest.color_space if output.format == "exr" else SRGB)
    conversion, output = Conversion(scene.manifest.color_space, space), replace(output, output_space=space)
    color = [folder / file for file in output.files(name, len(camera))]
    mask, remembered = _movies_beside(folder, name, settings, output)
    camera_file = folder / f"camera_{name}.npz"
    for path in filter(None, (*color, camera_file, mask, remembered)):
        require_file(path, inputs=[*inputs, *files_of(scene)], overwrite=overwrite)
    require_folder_name(folder, "a folder of images, or with a movie")
    shown = shown_frames(len(camera), first_frame, source_frames)
    request = {"render": settings.to_wire(), "output": output.to_wire()}
    if stereo.is_on:
        request["stereo"] = stereo.to_wire()
    files = DeepFiles(scene, camera, output, request, color, shown, stereo=stereo)
    folder.mkdir(parents=True, exist_ok=True)
    how = {"first_frame": first_frame, "source_frames": source_frames, "device": device, "machine": machine}
    visible, recalled = [], []
    with ExitStack() as stack:
        partial = stack.enter_context(atomic_write(camera_file))
        stack.enter_context(files)
        masks, memories = (_shares_movie(path, scene, files, stack) for path in (mask, remembered))
        for frame in render_eyes(scene, camera, settings, stereo, **how, deep=True, note=note):
            files.write(_picture(frame, conversion))
            if masks is not None:
                masks.write(frame.soft_mask)
            if memories is not None and frame.remembered is not None:
                memories.write(frame.remembered)
            visible.append(frame.visible_fraction)
            recalled.append(0.0 if frame.remembered is None else frame.remembered.mean())
            progress(STAGE, len(visible), len(camera))
        with translate_write_errors(camera_file):
            camera.save(partial)
    if shows_nothing(visible[0]):
        note(nothing_seen_note())
    return DeepRender(tuple(color), mask, camera_file, space, np.array(visible), remembered, np.array(recalled))


def _movies_beside(
    folder: Path, name: str, settings: RenderSettings, output: OutputSettings
) -> tuple[Path | None, Path | None]:
    """Movies of masks of what was seen and of what is remembered, beside files that have no channels for them."""
    has_alpha = output.is_sequence or MOVIES[output.format].has_alpha
    mask = None if has_alpha else folder / f"mask_{name}.mp4"
    remembers = bool(settings.remember) and output.format != "exr"
    return mask, folder / f"remembered_{name}.mp4" if remembers else None


def _shares_movie(path: Path | None, scene: Scene, files: DeepFiles, stack: ExitStack) -> VideoWriter | None:
    if path is None:
        return None
    how = {"pixel_aspect": files.pixel_aspect, "stereo": files.stereo.kind_of_movie, "metadata": files.movie_texts()}
    return stack.enter_context(BackgroundVideoWriter(path, *files.size, scene.manifest.fps, **how))


def _picture(frame: RenderedFrame, conversion: Conversion) -> DeepPicture:
    """A frame in the output's space; remembered pixels are whole."""
    assert frame.deep_color is not None, "rendered with deep colours"
    color = conversion.applied(frame.deep_color.astype(np.float32))
    alpha, shares = frame.soft_mask.astype(np.float32) / 255, {}
    if frame.remembered is not None:
        shares = {"seen.A": alpha, "remembered.A": frame.remembered}
        alpha = np.where(frame.remembered, np.float32(1), alpha)
    color[alpha == 0] = 0
    return DeepPicture(frame.index, color, alpha, frame.depth, shares)
