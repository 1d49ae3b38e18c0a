"""Files of more than 8 bits, of renders and takes: images, or a movie of 10 bits, and in each what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ex4d.media import write_png
from ex4d.media.deep_video_writer import MOVIES, DeepVideoWriter
from ex4d.media.exr_writer import write_exr
from ex4d.media.timecode import timecode_after, timecode_text
from ex4d.pipeline.geometry_passes import motion_vectors, positions, views_of
from ex4d_core import __version__
from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import OutputSettings
from ex4d_core.scene import Scene
from ex4d_core.stereo import StereoSettings

_ONE_EYE = StereoSettings()


@dataclass(frozen=True)
class DeepPicture:
    """One frame as it is written.

    Attributes:
        index: from 0, of the shot.
        color: (H, W, 3) float32, straight, in the output's colour space.
        alpha: (H, W) float32 in [0, 1]; None where there is a colour everywhere.
        depth: (H, W) float32 along the camera's z, in VR180 along the ray; infinite where there is no surface.
        shares: further channels of EXR files, (H, W) in [0, 1] by their names, such as "seen.A".
    """

    index: int
    color: np.ndarray
    alpha: np.ndarray | None
    depth: np.ndarray
    shares: Mapping[str, np.ndarray]


class DeepFiles:
    """Writes the pictures of a shot.

    Images are written by `write_image`, in any order and in any thread, and are whole or not there; a movie by
    `write_to_movie` inside of a `with` block, at whose good end it appears.

    Attributes:
        camera: of the whole shot.
        stereo: how images have both eyes, side by side.
        size: (width, height) of the images, of both eyes.
        pixel_aspect: width of the images' pixels by their height.
        paths: the images in order, or the movie.
    """

    def __init__(
        self,
        scene: Scene,
        camera: CameraPath,
        output: OutputSettings,
        request: Mapping[str, Any],
        paths: Sequence[Path],
        shown: Sequence[int],
        *,
        stereo: StereoSettings = _ONE_EYE,
    ) -> None:
        """Prepare the files.

        Args:
            camera: of the whole shot.
            output: of more than 8 bits; its `output_space` is that of the pictures.
            request: what the files say that they were made by.
            paths: of the images in order, or of the movie.
            shown: the footage frame that each picture shows.
            stereo: of any layout but "files".

        Raises:
            MediaError: the codec does not take frames of this size.
        """
        self._scene, self.camera, self._output, self._request = scene, camera, output, dict(request)
        self.paths, self._shown = tuple(paths), shown
        self.stereo, self.size, self.pixel_aspect = stereo, stereo.frame_size(camera), stereo.pixel_aspect(camera)
        self._views = views_of(camera, stereo)
        self._stack, self._movie = ExitStack(), None
        if not output.is_sequence:
            timecode = self._timecode(0)
            start = "" if timecode is None else timecode_text(timecode)
            kind, how = MOVIES[output.format], {"metadata": self.movie_texts(), "timecode": start}
            how |= {"pixel_aspect": self.pixel_aspect, "stereo": stereo.kind_of_movie}
            self._movie = DeepVideoWriter(self.paths[0], kind, *self.size, scene.manifest.fps, **how)

    @property
    def are_images(self) -> bool:
        """Whether each frame is a file."""
        return self._movie is None

    def __enter__(self) -> DeepFiles:
        """Create the partial file of a movie."""
        if self._movie is not None:
            self._stack.enter_context(self._movie)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the movie, or remove it after an error."""
        self._stack.__exit__(kind, error, trace)

    def write(self, picture: DeepPicture) -> None:
        """Write a picture where it belongs; those of a movie in order.

        Raises:
            MediaError: the file cannot be written.
        """
        if self._movie is None:
            self.write_image(picture)
        else:
            self.write_to_movie(picture)

    def write_to_movie(self, picture: DeepPicture) -> None:
        """Append a picture; where the codec has no alpha, over black."""
        assert self._movie is not None, "a movie"
        alpha = np.ones_like(picture.color[..., 0]) if picture.alpha is None else picture.alpha
        self._movie.write(picture.color if self._movie.kind.has_alpha else picture.color * alpha[..., None], alpha)

    def write_image(self, picture: DeepPicture) -> None:
        """Write a picture's file."""
        path, output, index, alpha = self.paths[picture.index], self._output, picture.index, picture.alpha
        if output.format == "png16":
            values = picture.color if alpha is None else np.dstack([picture.color, alpha])
            codes = np.rint(np.clip(values, 0.0, 1.0) * 65535).astype(np.uint16)
            write_png(path, codes, self._texts(index, "_"))
            return
        color = picture.color if alpha is None else np.dstack([picture.color * alpha[..., None], alpha])
        camera, depth, views = self.camera, picture.depth, self._views
        write_exr(
            path,
            color.astype(np.float16),
            depth=depth,
            position=positions(depth, views, index) if output.position else None,
            channels={
                **{name: np.asarray(values, np.float16) for name, values in picture.shares.items()},
                **motion_vectors(depth, views, index, output.motion),
            },
            space=output.output_space,
            compression=output.compression,
            timecode=self._timecode(index),
            fps=Fraction(self._scene.manifest.fps),
            world_to_camera=camera.world_to_camera[index],
            pixel_aspect=self.pixel_aspect,
            metadata=self._texts(index, ""),
        )

    def movie_texts(self) -> dict[str, str]:
        """What a movie says that it was made from: what its first frame is."""
        return self._texts(0, "_")

    def _timecode(self, index: int) -> tuple[int, int, int, int, bool] | None:
        """Of the footage's frame that a picture shows."""
        manifest = self._scene.manifest
        return timecode_after(manifest.origin.timecode, self._shown[index], Fraction(manifest.fps))

    def _texts(self, index: int, joint: str) -> dict[str, str]:
        """What a picture's file is made from, by name."""
        prefix, manifest, camera = (f"ex4d{joint}" if joint else ""), self._scene.manifest, self.camera
        described = {
            "size": list(camera.size),
            "intrinsics": camera.intrinsics[index].tolist(),
            "world_to_camera": camera.world_to_camera[index].tolist(),
        }
        if self.stereo.is_on:
            described["stereo"] = self.stereo.to_wire()
        texts = {
            "version": __version__,
            "request": json.dumps(self._request, sort_keys=True),
            "camera": json.dumps(described),
            "scene": self._scene.digest,
            "footage": json.dumps({**vars(manifest.origin), "frame": self._shown[index], "fps": str(manifest.fps)}),
        }
        return {prefix + name: text for name, text in texts.items()}
