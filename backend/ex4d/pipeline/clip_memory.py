"""`ClipMemory`: fills what a frame does not see with what other frames of the clip saw, in its true colours.

A few key frames, spread over the clip in time and pose, stand for all of it: their number does not depend on the clip's
length, so memory is bounded and the cost grows with the frames that are rendered. `ex4d.raster.key_frames` draws them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from cachetools import LRUCache

from ex4d.depth.cut_detection import CutDetector
from ex4d.machine import MachineSettings
from ex4d.mesh import DepthSurface
from ex4d.pipeline.surfaces import scene_surface
from ex4d.raster import RenderedBatch, RenderMemoryError, create_rasterizer
from ex4d.raster.batches import is_out_of_memory
from ex4d.raster.frames import joined
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage

if TYPE_CHECKING:
    from ex4d.raster.key_frames import KeyFrames

Result = TypeVar("Result")

# Frames that share key frames: what the camera saw ten seconds ago is most often out of the picture.
_WINDOW = 240
# More than this many fill few more pixels: 20 of 20 frames 34 %, 10 of them 31 %, and twice as fast
# (docs/measured/rendering.md).
_KEY_FRAMES = 10
# Depth, colour, limits, edge shares and votes of a key frame's pixel, and its half floats; all key frames together take
# no more than this.
_BYTES_PER_PIXEL, _BYTES_PER_DEEP_PIXEL = 15, 6
_KEY_BYTES = 2**30
# Key frames of the last windows, for shots that jump in time.
_KEPT_WINDOWS = 2
# Pixels of the shorter side that cuts are looked for at.
_CUT_SIDE = 192


class ClipMemory:
    """What a scene's clip knows; keeps the key frames of the windows that were asked for last."""

    def __init__(
        self,
        scene: PlacedFootage,
        settings: RenderSettings,
        *,
        device: str = "auto",
        machine: MachineSettings | None = None,
        reduced: int = 1,
        deep: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read nothing yet.

        Args:
            settings: its licence counts; key frames are drawn by the rasterizer warp, with plausible depth,
                one sample of each pixel and masks as they are.
            device: as in `create_rasterizer`.
            reduced: every so many pixels of the key frames count, in both directions; for figures, not for pictures.
            deep: also remember deep colours, which the scene must have.
            note: called with a sentence about key frames that contradict the others.
        """
        from ex4d.raster.warp_rasterizer import WarpRasterizer  # imports Warp

        self._scene = scene
        self._source = scene.source_camera()
        self._settings = RenderSettings("warp", occlusion="thickness", samples=1, licence=settings.licence, clean=False)
        self._rasterizer = cast(WarpRasterizer, create_rasterizer("warp", device, settings.licence, machine))
        self._reduced, self._deep, self._note = reduced, deep, note
        self._parts: dict[int, list[int]] = {}
        self._keys: LRUCache[tuple[int, int], KeyFrames] = LRUCache(_KEPT_WINDOWS)

    def recall(
        self, rendered: RenderedBatch, surface: DepthSurface, camera: CameraPath, shown: Sequence[int]
    ) -> RenderedBatch:
        """Fill the unseen pixels that the clip knows; see `KeyFrames.recall`.

        Args:
            rendered: with depth.
            surface: what was drawn.
            camera: from where.
            shown: the footage frame that each of them shows.

        Raises:
            RenderMemoryError: the device's memory is too small for the key frames.
        """
        return joined(self._by_part(lambda keys, *views: keys.recall(*views), rendered, surface, camera, shown))

    def render(self, camera: CameraPath, shown: Sequence[int], *, recalls: bool = True) -> RenderedBatch:
        """Frames of footage that is reduced as the key frames are, with plausible depth, as `recall` fills them.

        Args:
            recalls: whether it does.
        """
        surface, rendered = self._drawn(camera, shown)
        return self.recall(rendered, surface, camera, shown) if recalls else rendered

    def shares(self, camera: CameraPath, shown: Sequence[int]) -> np.ndarray:
        """(T,) float64, the share of the unseen pixels of small images that the clip knows; 0 where all is seen.

        Args:
            camera: of small images.
            shown: the footage frame that each of them shows.

        Raises:
            RenderMemoryError: the device's memory is too small for the key frames.
        """
        surface, rendered = self._drawn(camera, shown)
        known = self._by_part(lambda keys, *views: keys.remembered(*views), rendered, surface, camera, shown)
        known = torch.cat(known).flatten(1).sum(1)
        unseen = (~rendered.mask).flatten(1).sum(1)
        return (known.double() / unseen.clamp_min(1)).cpu().numpy()

    def _drawn(self, camera: CameraPath, shown: Sequence[int]) -> tuple[DepthSurface, RenderedBatch]:
        """Reduced frames of footage, and what they show with plausible depth."""
        surface = scene_surface(self._scene, self._source, self._settings, shown, copy=self._reduced == 1)
        surface = surface.reduced(self._reduced)
        return surface, self._rasterizer.render(surface, camera, with_depth=True)

    def _by_part(
        self,
        work: Callable[[KeyFrames, RenderedBatch, DepthSurface, CameraPath, Sequence[int]], Result],
        rendered: RenderedBatch,
        surface: DepthSurface,
        camera: CameraPath,
        shown: Sequence[int],
    ) -> list[Result]:
        """Give runs of frames to the key frames of their part of the clip; see `recall`."""
        found, start = [], 0
        try:
            for part, run in groupby(shown, self._part_of):
                stop = start + len(list(run))
                piece = rendered.map(lambda values, a=start, b=stop: values[a:b])
                views = surface.frame_range(start, stop), camera.frames(start, stop)
                found.append(work(self._key_frames(part), piece, *views, shown[start:stop]))
                start = stop
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise RenderMemoryError(
                f"{self._rasterizer.device} has too little memory to draw {_KEY_FRAMES} key frames at {camera.width} x "
                f"{camera.height} pixels: close other programs that use it, render smaller, or turn the clip's memory "
                f"off ({error})"
            ) from error
        return found

    def _key_frames(self, part: tuple[int, int]) -> KeyFrames:
        from ex4d.raster.key_frames import KeyFrames

        if part not in self._keys:
            manifest = self._scene.manifest
            per_pixel = _BYTES_PER_PIXEL + _BYTES_PER_DEEP_PIXEL * self._deep
            most = max(2, _KEY_BYTES * self._reduced**2 // (per_pixel * manifest.width * manifest.height))
            count = min(_KEY_FRAMES, most)
            numbers = spread_frames(self._source, range(*part), manifest.pivot_distance, count)
            surface = scene_surface(self._scene, self._source, self._settings, numbers, deep=self._deep)
            moving = self._moving(numbers)
            keys = KeyFrames(surface.reduced(self._reduced), numbers, self._rasterizer, moving)
            if moving is not None and bool(moving.all()):
                self._note(all_moving_note(part))
            if keys.contradicted:
                self._note(contradiction_note(keys.contradicted))
            self._keys[part] = keys
        return self._keys[part]

    def _moving(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """(K, H, W) bool, where something moves in key frames, by the artist's mask."""
        mask = self._scene.motion_mask()
        if mask is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(mask[numbers, :: self._reduced, :: self._reduced]))

    def _part_of(self, frame: int) -> tuple[int, int]:
        """The frames start..stop-1 around a frame that share key frames: no cut is among them."""
        window = frame // _WINDOW * _WINDOW
        stop = min(window + _WINDOW, self._scene.manifest.frames)
        if window not in self._parts:
            color = self._scene.color()
            step = max(1, min(color.shape[1:3]) // _CUT_SIDE)
            detector = CutDetector()
            for number in range(window, stop):
                detector.begins_shot(color[number, ::step, ::step])
            self._parts[window] = [window, *(window + cut for cut in detector.cuts), stop]
        edges = self._parts[window]
        k = bisect_right(edges, frame)
        return edges[k - 1], edges[k]


def spread_frames(camera: CameraPath, frames: range, distance: float, count: int) -> list[int]:
    """Up to ``count`` of some frames, far from each other in time and in pose, in order.

    Each is the farthest one from those before it, the first frame first.

    Args:
        camera: the source camera of the whole clip.
        distance: of what the camera looks at; poses differ by the camera's way in terms of it, and by the direction of
            view.
    """
    poses = camera.camera_to_world[frames.start : frames.stop]
    pose = np.concatenate([poses[:, :3, 3] / distance, poses[:, :3, 2]], axis=1)
    pose = (pose - pose[0]) / max(float(np.linalg.norm(pose - pose[0], axis=1).max()), 1e-3)
    places = np.column_stack([pose, np.linspace(0.0, 1.0, len(frames))])
    chosen = [0]
    away = np.linalg.norm(places - places[0], axis=1)
    while len(chosen) < min(count, len(frames)):
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(places - places[chosen[-1]], axis=1))
        away[chosen] = -1.0
    return [frames[k] for k in sorted(chosen)]


def all_moving_note(part: tuple[int, int]) -> str:
    """For the user, about a mask that leaves nothing of a part of the clip, frames start..stop-1."""
    return (
        f"the scene's motion mask covers everything in frames {part[0]} to {part[1] - 1}: the clip's memory has "
        "nothing to remember there"
    )


def contradiction_note(frames: Sequence[int]) -> str:
    """For the user, about key frames that are left out."""
    one = len(frames) == 1
    which = f"frame {frames[0]} contradicts" if one else f"frames {', '.join(map(str, frames))} contradict"
    return (
        f"{which} most of what other frames of the clip see: the camera's poses do not fit the depth there, or a "
        f"moving subject fills the frame. The clip's memory leaves {'it' if one else 'them'} out"
    )
