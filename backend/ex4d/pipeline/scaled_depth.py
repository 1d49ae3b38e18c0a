"""The offset, the far limit and the unit of depth: as the settings say, or fitted to the camera that filmed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth import DepthClip
from ex4d.depth.camera_fit import FIT_STEPS, STILL_NOTE, CameraFit, KeyFrames, fit_to_camera
from ex4d.devices import torch_device
from ex4d.media import MotionMask, Undistorter, read_frames
from ex4d.progress import Progress, ignore_progress
from ex4d_core.cameras import CameraPath
from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings

if TYPE_CHECKING:
    from ex4d.media import FootageInfo

FIT_STAGE = "fit to the camera"


def scaled_depth(
    depth: DepthClip,
    settings: DepthSettings,
    camera: CameraPath | None,
    *,
    undistorter: Undistorter | None = None,
    mask: MotionMask | None = None,
    device: str = "auto",
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[DepthClip, str]:
    """Depth under the offset and far limit of the settings; relative depth in the unit of a source camera that moves.

    Args:
        depth: as it was read or estimated.
        settings: of the depth.
        camera: that filmed it, where it moves.
        undistorter: of the footage's lens.
        mask: of what moves, which tells nothing of the camera.
        device: where motion is estimated.
        progress: called with the stage `FIT_STAGE`, steps done, and steps in all; what it raises ends the work.
        note: called with what was found, for the user.

    Returns:
        The depth, and how it was fitted, for people; "" where it was not.

    Raises:
        DepthError: the source camera contradicts the depth, or the depth cannot be read.
    """
    # Poses that came with the depth are in its unit already.
    fits = camera is not None and settings.camera_fit and depth.scale == "relative" and camera is not depth.camera
    if settings.offset is None and settings.far_limit is None and not fits:
        return depth, ""
    depth = depth.as_disparity()
    assert depth.mapping is not None
    mapping = depth.mapping.changed(settings.offset, settings.far_limit)
    depth = replace(depth, mapping=mapping, scale="relative")
    if camera is None or not fits:
        return depth, ""
    masks = None if mask is None else mask.frames()
    if masks is not None and undistorter is not None:
        masks = map(undistorter.depth, masks)
    pairs = _undistorted(depth, undistorter)
    fit = _fitted(pairs, camera, mapping, settings.offset, device, progress, masks)
    for text in fit_notes(fit):
        note(text)
    if fit is None:
        return depth, "not fitted to the source camera, which moves too little"
    return replace(depth, mapping=fit.mapping), f"fitted to the source camera: {fit.mapping}"


def fitted_mapping(
    scene: Scene,
    device: str = "auto",
    offset: float | None = None,
    progress: Progress = ignore_progress,
    mask: MotionMask | None = None,
) -> CameraFit | None:
    """The mapping under which a scene's depth agrees with its source camera; None where that moves too little to tell.

    Args:
        scene: whose depth may have another unit and offset than its camera.
        device: where motion is estimated.
        offset: keep this one, and fit only the unit.
        progress: as of `scaled_depth`.
        mask: of what moves; None takes the scene's own, if it has one.

    Raises:
        DepthError: the source camera contradicts the depth.
    """
    mapping = scene.manifest.mapping
    pairs = zip(scene.color(), map(mapping.disparity, scene.depth()), strict=True)
    masks = scene.motion_mask() if mask is None else mask.frames()
    return _fitted(pairs, scene.source_camera(), mapping, offset, device, progress, masks)


def _fitted(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    camera: CameraPath,
    mapping: DepthMapping,
    offset: float | None,
    device: str,
    progress: Progress,
    masks: Iterable[np.ndarray] | None,
) -> CameraFit | None:
    """The fit of frames with their relative disparity to the camera that filmed them."""
    steps, done = len(camera) + FIT_STEPS, itertools.count(1)

    def advance() -> None:
        progress(FIT_STAGE, min(next(done), steps), steps)

    def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for pair in pairs:
            yield pair
            advance()

    key_frames = KeyFrames(counted(), len(camera), torch_device(device), masks)
    return fit_to_camera(key_frames, camera, mapping, offset, advance)


def fit_notes(fit: CameraFit | None) -> Iterator[str]:
    """Sentences for the user about a fit, or why nothing was fitted."""
    if fit is None:
        yield STILL_NOTE
        return
    yield f"relative depth was fitted to the source camera: {fit.mapping}, nearest {fit.mapping.nearest:.4g}."
    if fit.contradicting:
        some = ", ".join(map(str, fit.contradicting))
        yield f"of the frames that were examined, the source camera contradicts the depth in {some}: check its poses."


def _undistorted(depth: DepthClip, undistorter: Undistorter | None) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The footage's frames with their relative disparity, as the source camera shows them."""
    frames = read_frames(depth.footage.path, count=depth.footage.frames)
    pairs = zip(frames, depth.read(), strict=True)
    if undistorter is None:
        return pairs
    return ((undistorter.color(frame), undistorter.depth(_enlarged(stored, depth.footage))) for frame, stored in pairs)


def _enlarged(values: np.ndarray, footage: FootageInfo) -> np.ndarray:
    if values.shape == (footage.height, footage.width):
        return values
    stored = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    return F.interpolate(stored, (footage.height, footage.width), mode="bilinear")[0, 0].numpy()
