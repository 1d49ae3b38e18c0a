"""Reads the windows of one clip for training: frames, depth and source camera at the samples' size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ex4d.depth import DepthClip, DepthError, DepthEstimator, KnownIntrinsics, known_intrinsics, resolved_intrinsics
from ex4d.depth.intrinsics import intrinsics_from
from ex4d.media import Undistorter, probe, read_frames, write_png
from ex4d.mesh import DepthSurface
from ex4d.pipeline.footage_camera import FoundCamera, camera_of_file
from ex4d.pipeline.footage_depth import depth_of
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.training.clip_list import STILL_CAMERA, Clip
from ex4d.training.framing import Framing
from ex4d_core.cameras import CameraPath
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.sources import DepthSettings, depth_layout


@dataclass(frozen=True, eq=False)
class ReadWindow:
    """One window of a clip.

    Attributes:
        surface: its frames with depth, and poses where the source camera is known and moves.
        camera_known: whether the source camera is known, be it one that stands still.
        depth_source: what provided the depth, for people.
    """

    surface: DepthSurface
    camera_known: bool
    depth_source: str

    @property
    def frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 sRGB."""
        return self.surface.color.numpy()


class ClipReader:
    """Reads windows of a clip in order; depth files are read on from where the window before has ended.

    Lens distortion that the camera's file states is undone, as `ex4d.pipeline.reconstruct` does.
    """

    def __init__(self, clip: Clip, size: tuple[int, int], estimator: Callable[[], DepthEstimator]):
        """Open a clip.

        Args:
            size: (width, height) of the samples.
            estimator: gives the estimator of clips without depth files.

        Raises:
            MediaError, DepthError, CameraError: its files cannot be used.
        """
        self.clip, self._estimator = clip, estimator
        self._footage = info = probe(Path(clip.footage))
        self._framing = Framing(info.width, info.height, size, info.pixel_aspect)
        stated = None
        if clip.fov is not None:
            stated = intrinsics_from(info.width, info.height, fov_degrees=clip.fov, pixel_aspect=info.pixel_aspect)
        self._camera: CameraPath | None = None
        self._depth: DepthClip | None = None
        depth_settings = DepthSettings(depth_layout(Path(clip.depth)) if clip.depth else "estimator", "auto")
        found = FoundCamera(motion="still" if clip.camera == STILL_CAMERA else "auto")
        if clip.camera not in ("", STILL_CAMERA):
            sources = SourcePaths(info.path, Path(clip.depth), Path(clip.camera))
            found = camera_of_file(sources, ReconstructionSettings(info.path.stem, depth_settings), info)
        self._distortion = found.distortion
        self._undistorter = None if found.distortion is None else Undistorter(found.distortion)
        lens_of_camera = found.intrinsics
        self._known = known_intrinsics(info, stated=stated, camera_file=lens_of_camera, depth_has_lens=bool(clip.depth))
        self._position, self._stored = 0, iter(())
        if clip.depth:
            depth = depth_of(Path(clip.depth), depth_settings, info, self._known)
            camera, self._depth, _ = found.with_depth(depth, found.distortion)
            self._camera = None if camera is None else camera.path

    def read(self, start: int, count: int) -> ReadWindow:
        """Read a window.

        Raises:
            MediaError, DepthError: a frame or its depth cannot be read.
        """
        images = read_frames(self._footage.path, start, count)
        if self._undistorter is not None:
            images = map(self._undistorter.color, images)
        frames = np.stack([self._framing.color(image) for image in images])
        if self._depth is not None:
            stored = self._stored_depth(self._depth, start, count)
            lens = resolved_intrinsics(self._known, self._footage, self._depth).matrix
            if self._undistorter is not None and self._distortion is not None:
                stored, lens = map(self._undistorter.depth, stored), self._distortion.zoomed(lens)
            depth = np.stack([self._framing.depth(one) for one in stored])
            lens = self._framing.intrinsics(lens)
            lens = lens[start : start + count] if lens.ndim == 3 else lens
            poses = None if self._camera is None else self._camera.frames(start, start + count)
            source = self._depth.source
        else:
            depth, lens, poses, source = self._estimated(frames)
        if len(depth) != count:
            raise DepthError(f"{self.clip.footage}: {len(depth)} frames of depth for {count} of the window at {start}")
        surface = DepthSurface(
            torch.from_numpy(np.ascontiguousarray(depth, np.float32)),
            torch.from_numpy(frames),
            torch.from_numpy(np.broadcast_to(lens, (count, 3, 3)).copy()),
            None if poses is None else torch.from_numpy(poses.camera_to_world),
        )
        return ReadWindow(surface, poses is not None or self.clip.camera == STILL_CAMERA, source)

    def _stored_depth(self, depth: DepthClip, start: int, count: int) -> Iterator[np.ndarray]:
        if start < self._position or self._position == 0:
            self._position, self._stored = 0, iter(depth)
        skipped = start - self._position
        self._position = start + count
        return islice(self._stored, skipped, skipped + count)

    def _estimated(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, CameraPath | None, str]:
        """Depth, intrinsics, poses and source of the frames as samples show them."""
        with tempfile.TemporaryDirectory(prefix="ex4d-window-") as name:
            for index, frame in enumerate(frames):
                write_png(Path(name) / f"{index:04d}.png", frame)
            footage = probe(Path(name))
            clip = self._estimator().estimate(footage)
            depth = np.stack(list(clip))
            known = self._known and KnownIntrinsics(self._framing.intrinsics(self._known.matrix), self._known.origin)
            lens = resolved_intrinsics(known, footage, clip).matrix
        return depth, lens, None if clip.camera is None else clip.camera, clip.source
