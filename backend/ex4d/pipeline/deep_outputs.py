"""Renders of more than 8 bits, written for compositing: EXR and PNG sequences, and movies of 10 bits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.media import BackgroundVideoWriter, write_png
from ex4d.media.colour_management import SRGB, Conversion
from ex4d.media.deep_video_writer import MOVIES, DeepVideoWriter
from ex4d.media.exr_writer import write_exr
from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d.media.timecode import timecode_after, timecode_text
from ex4d.pipeline.outputs import STAGE
from ex4d.pipeline.render import nothing_seen_note, render_shot, settings_for_deep_colors, shows_nothing
from ex4d.pipeline.targets import files_of, require_file, require_folder_name
from ex4d.progress import Progress, ignore_progress
from ex4d.raster import RenderedFrame
from ex4d_core import __version__
from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import OutputSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.source_frames import shown_frames

_SUFFIXES = {"exr": ".exr", "png16": ".png"}


@dataclass(frozen=True)
class DeepRender:
    """Files of a render.

    Attributes:
        color: the images in order, or one movie.
        mask: a movie beside one without alpha, else None.
        camera: the file.
        space: colour space of what was written.
        visible_fraction: (T,) float64, share of each frame that the footage saw, 0 to 1.
    """

    color: tuple[Path, ...]
    mask: Path | None
    camera: Path
    space: str
    visible_fraction: np.ndarray


def render_deep(
    scene: Scene,
    camera: CameraPath,
    settings: RenderSettings,
    output: OutputSettings,
    folder: Path,
    name: str,
    *,
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

    EXR files have premultiplied colour with the soft mask as alpha, and depth along the new camera's z; other files
    with alpha have straight colour. What is not seen is 0.

    Args:
        output: of any format but "mp4".
        folder: for the files.
        name: of the shot.
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
    conversion = Conversion(scene.manifest.color_space, space)
    files = _DeepFiles(scene, camera, settings, replace(output, output_space=space), folder, name)
    for path in files.all:
        require_file(path, inputs=[*inputs, *files_of(scene)], overwrite=overwrite)
    require_folder_name(folder, "a folder of images, or with a movie")
    folder.mkdir(parents=True, exist_ok=True)
    shown = shown_frames(len(camera), first_frame, source_frames)
    how = {"first_frame": first_frame, "source_frames": source_frames, "device": device, "machine": machine}
    frames = render_shot(scene, camera, settings, **how, deep=True, note=note)
    visible = []
    for frame in files.written(frames, conversion, shown):
        visible.append(frame.visible_fraction)
        progress(STAGE, len(visible), len(camera))
    if shows_nothing(visible[0]):
        note(nothing_seen_note())
    return DeepRender(files.color, files.mask, files.camera_file, space, np.array(visible))


class _DeepFiles:
    """The files of a render: their names, and what is written into each."""

    def __init__(
        self,
        scene: Scene,
        camera: CameraPath,
        settings: RenderSettings,
        output: OutputSettings,
        folder: Path,
        name: str,
    ) -> None:
        self._scene, self._camera, self._settings, self._output = scene, camera, settings, output
        if output.is_sequence:
            suffix = _SUFFIXES[output.format]
            self.color = tuple(folder / (output.name_of(name, index) + suffix) for index in range(len(camera)))
        else:
            self.color = (folder / (output.name_of(name) + MOVIES[output.format].suffix),)
        without_alpha = not output.is_sequence and not MOVIES[output.format].has_alpha
        self.mask = folder / f"mask_{name}.mp4" if without_alpha else None
        self.camera_file = folder / f"camera_{name}.npz"
        self.all = (*self.color, self.camera_file, *([] if self.mask is None else [self.mask]))

    def written(
        self, frames: Iterable[RenderedFrame], conversion: Conversion, shown: Sequence[int]
    ) -> Iterator[RenderedFrame]:
        """Write frames as they come, and the camera at the end; yields each once it is written."""
        camera, fps = self._camera, self._scene.manifest.fps
        how = {"width": camera.width, "height": camera.height, "fps": fps, "pixel_aspect": camera.pixel_aspect}
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_write(self.camera_file))
            movie = mask = None
            if not self._output.is_sequence:
                how |= {"metadata": self._texts(shown[0], 0, "_")}
                timecode = self._timecode(shown[0])
                start = "" if timecode is None else timecode_text(timecode)
                kind = MOVIES[self._output.format]
                movie = stack.enter_context(DeepVideoWriter(self.color[0], kind, **how, timecode=start))
                if self.mask is not None:
                    mask = stack.enter_context(BackgroundVideoWriter(self.mask, **how))
            for frame in frames:
                assert frame.deep_color is not None, "rendered with deep colours"
                color = conversion.applied(frame.deep_color.astype(np.float32))
                alpha = frame.soft_mask.astype(np.float32) / 255
                color[alpha == 0] = 0
                if movie is None:
                    self._write_image(frame, color, alpha, shown[frame.index])
                else:
                    movie.write(color if movie.kind.has_alpha else color * alpha[..., None], alpha)
                if mask is not None:
                    mask.write(frame.soft_mask)
                yield frame
            with translate_write_errors(self.camera_file):
                camera.save(partial)

    def _write_image(self, frame: RenderedFrame, color: np.ndarray, alpha: np.ndarray, shown: int) -> None:
        path, output = self.color[frame.index], self._output
        if output.format == "png16":
            codes = np.rint(np.clip(np.dstack([color, alpha]), 0.0, 1.0) * 65535).astype(np.uint16)
            write_png(path, codes, self._texts(shown, frame.index, "_"))
            return
        write_exr(
            path,
            np.dstack([color * alpha[..., None], alpha]).astype(np.float16),
            depth=frame.depth,
            position=_positions(frame, self._camera) if output.position else None,
            space=output.output_space,
            compression=output.compression,
            timecode=self._timecode(shown),
            fps=Fraction(self._scene.manifest.fps),
            world_to_camera=self._camera.world_to_camera[frame.index],
            pixel_aspect=frame.pixel_aspect,
            metadata=self._texts(shown, frame.index, ""),
        )

    def _timecode(self, shown: int) -> tuple[int, int, int, int, bool] | None:
        """Of a frame of the footage."""
        manifest = self._scene.manifest
        return timecode_after(manifest.origin.timecode, shown, Fraction(manifest.fps))

    def _texts(self, shown: int, index: int, joint: str) -> dict[str, str]:
        """What a file is made from, by name; of a movie, its first frame's."""
        prefix, manifest = (f"ex4d{joint}" if joint else ""), self._scene.manifest
        request = {"render": self._settings.to_wire(), "output": self._output.to_wire()}
        camera = {
            "size": list(self._camera.size),
            "intrinsics": self._camera.intrinsics[index].tolist(),
            "world_to_camera": self._camera.world_to_camera[index].tolist(),
        }
        texts = {
            "version": __version__,
            "request": json.dumps(request, sort_keys=True),
            "camera": json.dumps(camera),
            "scene": self._scene.digest,
            "footage": json.dumps({**vars(manifest.origin), "frame": shown, "fps": str(manifest.fps)}),
        }
        return {prefix + name: text for name, text in texts.items()}


def _positions(frame: RenderedFrame, camera: CameraPath) -> np.ndarray:
    """(H, W, 3) float32, the points of a frame in the scene's world; 0 where there is no surface."""
    height, width = frame.depth.shape
    lens, pose = camera.intrinsics[frame.index], camera.camera_to_world[frame.index]
    z = np.where(np.isfinite(frame.depth), frame.depth, 0.0)
    x = (np.arange(width) + 0.5 - lens[0, 2]) / lens[0, 0]
    y = (np.arange(height) + 0.5 - lens[1, 2]) / lens[1, 1]
    points = np.dstack([x[None] * z, y[:, None] * z, z])
    return ((points @ pose[:3, :3].T + pose[:3, 3]) * (z > 0)[..., None]).astype(np.float32)
