"""Takes of more than 8 bits: what an engine makes, before it is rounded, and the footage's own colours over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ex4d.media.colour_management import LINEAR_SRGB, SRGB, Conversion
from ex4d.pipeline.deep_files import DeepFiles, DeepPicture
from ex4d.pipeline.keep_seen import Gains, laid_over_unrounded, seen_matte
from ex4d.pipeline.render import settings_for_deep_colors
from ex4d.raster import RenderedFrame
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest


def draws_deep_colors(scene: Scene, request: ShotRequest) -> bool:
    """Whether a take shows the scene's deep colours: a preview in more than 8 bits, and a final with seen pixels."""
    return scene.manifest.is_deep and request.draws_deep


def require_deep_take(scene: Scene, request: ShotRequest) -> None:
    """Check that a take can be made in more than 8 bits, where it is to be.

    Raises:
        SceneError: a preview of a scene of 8 bits.
        RequestError: settings that have 8 bits only.
        ColourSpaceError: the output space is unknown, or OpenColorIO is needed and not installed.
    """
    if not request.output.is_deep:
        return
    if request.engine != "wan":
        scene.deep_color()
        if request.preview.holes == "mark":
            raise RequestError(f"holes mark is for 8 bits: leave it out, or the format {request.output.format}")
    if draws_deep_colors(scene, request):
        settings_for_deep_colors(request.settled_render)
    space = take_space(scene, request.output)
    for one in {SRGB, scene.manifest.color_space or SRGB} if request.engine == "wan" else {scene.manifest.color_space}:
        Conversion(one, space)


def take_space(scene: Scene, output: OutputSettings) -> str:
    """The colour space of a take's files: what was asked for; else, of EXR, the scene's or linear, and sRGB."""
    of_exr = scene.manifest.color_space or LINEAR_SRGB
    return output.output_space or (of_exr if output.format == "exr" else SRGB)


class DeepTake:
    """Makes a take's pictures of more than 8 bits, and writes them.

    Its files appear at the good end of a `with` block: a movie. Images are whole when `write_image` returns.

    Attributes:
        files: that are written.
        draws_deep: whether rendered frames need deep colours.
    """

    def __init__(
        self,
        scene: Scene,
        request: ShotRequest,
        described: Mapping[str, Any],
        folder: Path,
        places: Iterable[int | None],
    ) -> None:
        """Prepare the files.

        Args:
            described: the request as the files tell it.
            folder: for the files.
            places: of the frames that an engine will make, in order; None for one that is not of the take.

        Raises:
            MediaError: the codec does not take frames of this size.
        """
        output = replace(request.output, output_space=take_space(scene, request.output))
        paths = [folder / name for name in request.deep_files]
        frames, stereo = request.footage_frames, request.stereo
        self.files = DeepFiles(scene, request.camera, output, described, paths, frames, stereo=stereo)
        self.draws_deep = draws_deep_colors(scene, request)
        own = scene.manifest.color_space if self.draws_deep else SRGB
        self._from_footage = Conversion(own, output.output_space)
        self._from_engine = Conversion(SRGB if request.engine == "wan" else own, output.output_space)
        self._keeps_seen = request.engine == "wan" and request.wan.keep_seen
        self._places = iter(places)
        self._seen: dict[int, RenderedFrame] = {}
        self._unrounded: dict[int, np.ndarray] = {}

    def __enter__(self) -> DeepTake:
        self.files.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.files.__exit__(kind, error, trace)

    def watch(self, frames: Iterable[RenderedFrame], hidden: int, start: int) -> Iterator[RenderedFrame]:
        """Pass rendered frames on and keep those of the take; ``hidden`` first ones, and those before ``start``, go."""
        for frame in frames:
            if frame.index >= hidden + start:
                self._seen[frame.index - hidden] = frame
            yield frame

    def add(self, image: np.ndarray) -> None:
        """The `UnroundedCallback` of the engine."""
        place = next(self._places)
        if place is not None:
            self._unrounded[place] = image

    def picture(self, place: int, image: np.ndarray, gains: Gains | None) -> DeepPicture:
        """A frame of the take, once.

        Args:
            image: (H, W, 3) uint8, the same in 8 bits, before the frame's own footage is laid over it: all that there
                is of frames between generated ones.
            gains: by which its colours were scaled to the footage's.
        """
        seen, unrounded = self._seen.pop(place), self._unrounded.pop(place, None)
        if unrounded is None:
            unrounded = image.astype(np.float32) / 255
        color = self._from_engine.applied(unrounded if gains is None else unrounded * np.array(gains, np.float32))
        if self._keeps_seen:
            footage = seen.color.astype(np.float32) / 255 if seen.deep_color is None else seen.deep_color
            shown = self._from_footage.applied(footage.astype(np.float32))
            color = laid_over_unrounded(color, shown, seen_matte(seen.soft_mask))
        shares = {"seen.A": seen.soft_mask.astype(np.float32) / 255}
        if seen.remembered is not None:
            shares["remembered.A"] = seen.remembered
        return DeepPicture(place, color, None, seen.depth, shares)

    def written(self, picture: DeepPicture) -> Callable[[], None] | None:
        """Append a picture to the movie; or what writes its image, in any thread."""
        if self.files.are_images:
            return partial(self.files.write_image, picture)
        self.files.write_to_movie(picture)
        return None

    def image_of(self, place: int) -> Path | None:
        """The file of a frame; None where there is one movie."""
        return self.files.paths[place] if self.files.are_images else None
