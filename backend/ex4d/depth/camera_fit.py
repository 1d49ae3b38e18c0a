"""Fits relative depth to the camera that filmed it: factor and offset of disparity under which still things stay put.

Points of one frame are found again in another by optical flow. With the poses of both, that tells their true disparity,
in the camera's unit; an affine map of the estimate's disparity is fitted to it, in pixels of parallax and robustly, so
that subjects that move and matches that are wrong hardly count. One map serves the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.camera_fit_refinement import PointsOfPair, refined_fit
from ex4d.depth.depth_clip import DepthError
from ex4d.depth.motion import Motion, motion_between, working_image
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.depth_mapping import MAX_OFFSET, MIN_OFFSET, DepthMapping

STILL_NOTE = (
    "the source camera moves too little for its footage to tell the unit and the offset of relative depth: both are "
    "left as they are. Set the offset by eye (--depth-offset, or Depth Offset in Blender)."
)

# At most, whatever the clip's length: frames that are kept, and of these those whose points are looked for in another.
_KEY_FRAMES, FIT_STEPS = 48, 6
_LARGER_SIDE = 480  # pixels at which colours are compared in the end
_STRIDE = 3  # of every so many points
# In pixels of `ex4d.depth.motion`'s working images, in which points are found again to half a pixel.
_PARALLAX = 6.0  # from which on a second frame is far enough away
_LEAST_PARALLAX = 1.0  # below, matches are too coarse to tell anything
_LEAST_TRUSTED = 0.25  # share of a frame that must be found again
_LEAST_MATCHES = 200  # in all
_OFF_LINE = 1.0  # pixels that a match may lie beside the line on which the poses say it must lie
_NEAR = 2.0  # pixels within which a match agrees with the fit
_LEAST_AGREEING = 0.3  # share of a frame's matches that must agree
_TRIES, _ROUNDS = 500, 30


@dataclass(frozen=True)
class _Matches:
    """Points of a frame that were found again in another: all (N,).

    Attributes:
        relative: the estimate's relative disparity.
        true: disparity by the two poses, in the camera's unit.
        pixels: of parallax for a change of disparity by 1.
        off_line: distance from the line on which the poses say it must lie, pixels.
        parallax: displacement that is not the camera's rotation, pixels.
        frame, other: key frames, for each: where it is, and where it was found again.
        place: (N, 2) in the first of them, x and y in pixels, pixel centres at +0.5.
    """

    relative: np.ndarray
    true: np.ndarray
    pixels: np.ndarray
    off_line: np.ndarray
    parallax: np.ndarray
    frame: np.ndarray
    other: np.ndarray
    place: np.ndarray

    def where(self, chosen: np.ndarray) -> _Matches:
        """Some of them: (N,) bool, or indices."""
        return _Matches(*(values[chosen] for values in vars(self).values()))

    def errors(self, factor: float, shift: float) -> np.ndarray:
        """(N,) distances from where a fit puts them, pixels."""
        return np.abs(factor * self.relative + shift - self.true) * self.pixels


@dataclass(frozen=True)
class CameraFit:
    """What the source camera tells of relative depth.

    Attributes:
        mapping: of the relative disparity to depth in the camera's unit.
        error: median distance of matches from where the fit puts them, working pixels.
        contradicting: frames of the footage, of those examined, most of whose points the poses contradict.
    """

    mapping: DepthMapping
    error: float
    contradicting: tuple[int, ...] = ()


class KeyFrames:
    """Frames and relative disparity of some moments of a clip, small: memory does not grow with the clip's length.

    Args:
        pairs: all frames of the footage, (H, W, 3) uint8, with relative disparity (h, w), in order.
        frames: how many there are.
        device: where motion is estimated.
        masks: of what moves, (H, W) bool for each frame, whose points are not used.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[np.ndarray, np.ndarray]],
        frames: int,
        device: torch.device | str = "cpu",
        masks: Iterable[np.ndarray] | None = None,
    ) -> None:
        self.frames = np.unique(np.linspace(0, frames - 1, min(frames, _KEY_FRAMES)).round().astype(int))
        self.images: list[torch.Tensor] = []
        self.larger: list[torch.Tensor] = []
        self.disparities: list[torch.Tensor] = []
        self.moving: list[torch.Tensor] = []
        wanted = set(self.frames.tolist())
        every_mask = repeat(None, frames) if masks is None else masks
        for index, ((image, disparity), mask) in enumerate(zip(pairs, every_mask, strict=True)):
            if index in wanted:
                whole = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1).float() / 255
                small = working_image(whole)
                scale = min(1.0, _LARGER_SIDE / max(image.shape[:2]))
                size = [max(8, round(side * scale)) for side in image.shape[:2]]
                # In 16 bits: 50 MB at most.
                self.larger.append(F.interpolate(whole[None], size=size, mode="bilinear", antialias=True)[0].half())
                values = torch.from_numpy(np.ascontiguousarray(disparity, np.float32)).to(device)
                self.images.append(small)
                moving = torch.zeros(small.shape[1:], dtype=torch.bool, device=device)
                if mask is not None:
                    share = torch.from_numpy(np.array(mask, np.float32)).to(device)[None, None]
                    moving = F.interpolate(share, size=small.shape[1:], mode="area")[0, 0] > 0
                self.moving.append(moving)
                self.disparities.append(F.interpolate(values[None, None], size=small.shape[1:], mode="area")[0, 0])


def fit_to_camera(
    key_frames: KeyFrames,
    camera: CameraPath,
    mapping: DepthMapping,
    offset: float | None = None,
    advance: Callable[[], None] = lambda: None,
) -> CameraFit | None:
    """The mapping under which relative disparity agrees with the poses; None where the camera moves too little to tell.

    Args:
        key_frames: of the clip.
        camera: that filmed it, one pose for each frame of the footage.
        mapping: as it is now; its far limit stays.
        offset: keep this one, and fit only the unit; None fits both.
        advance: called `FIT_STEPS` times at most while points are found again; what it raises ends the work.

    Raises:
        DepthError: the poses contradict the depth or the footage; names the frame where they do most.
    """
    found = []
    with _one_thread():
        for one in np.unique(np.linspace(0, len(key_frames.frames) - 1, FIT_STEPS).round().astype(int)):
            if (matches := _matches_of(key_frames, camera, int(one))) is not None:
                found.append(matches)
            advance()
    if sum(len(matches.true) for matches in found) < _LEAST_MATCHES:
        return None
    columns = zip(*(vars(one).values() for one in found), strict=True)
    everything = _Matches(*(np.concatenate(values) for values in columns))
    if np.median(everything.parallax) < _LEAST_PARALLAX:
        return None
    usable = everything.where((everything.off_line < _OFF_LINE) & (everything.pixels > 0))
    keys = np.unique(everything.frame)
    frames = key_frames.frames[keys]
    factor = shift = 0.0
    if len(usable.true) >= _LEAST_MATCHES:
        factor, shift = _robust_fit(usable, offset)
        agreeing = usable.where(np.flatnonzero(usable.errors(factor, shift) < _NEAR)[::_STRIDE])
        with _one_thread():
            pairs = [
                _pair(key_frames, camera, agreeing.where(agreeing.frame == key)) for key in np.unique(agreeing.frame)
            ]
            factor, shift = refined_fit(pairs, factor, shift, offset)
    error = everything.errors(factor, shift)
    agrees = (error < _NEAR) & (everything.off_line < _OFF_LINE)
    shares = np.array([agrees[everything.frame == key].mean() for key in keys])
    new_offset = shift / factor if factor > 0 else np.nan
    nearest = 1 / (factor + shift) if factor + shift > 0 else np.nan
    possible = np.isfinite(nearest) and MIN_OFFSET <= new_offset <= MAX_OFFSET
    if np.median(shares) < _LEAST_AGREEING or not possible:
        raise _contradiction(int(frames[shares.argmin()]), float(shares.min()))
    return CameraFit(
        DepthMapping(float(nearest), float(new_offset), mapping.far_limit),
        float(np.median(error[agrees])),
        tuple(int(frame) for frame in frames[shares < _LEAST_AGREEING]),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one processor core: images are so small that threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _contradiction(frame: int, share: float) -> DepthError:
    return DepthError(
        f"the source camera contradicts the depth, most of all in frame {frame}, where {100 * share:.0f} % of the "
        "points agree: give the camera of this footage with its lens and in its order of frames, or --no-camera-fit to "
        "take both as they are"
    )


def _matches_of(key_frames: KeyFrames, camera: CameraPath, index: int) -> _Matches | None:
    """Points of a key frame found again in one that is far enough away; None where none has much in common."""
    best, step = None, 1
    while step < len(key_frames.frames):
        other = index + step if index + step < len(key_frames.frames) else index - step
        if other < 0:
            break
        matches, trusted = _match(key_frames, camera, index, other)
        if trusted < _LEAST_TRUSTED:
            break
        best, parallax = matches, float(np.median(matches.parallax))
        if parallax >= 0.7 * _PARALLAX:
            break
        # Parallax grows with the distance between the frames, about.
        step = max(step + 1, min(4 * step, round(step * _PARALLAX / max(parallax, 1e-6))))
    return best


def _match(key_frames: KeyFrames, camera: CameraPath, index: int, other: int) -> tuple[_Matches, float]:
    """The points of a key frame that are found in another one, and their share of the frame."""
    motion = motion_between(key_frames.images[other], key_frames.images[index])
    height, width = motion.trusted.shape
    trusted = (motion.trusted & ~key_frames.moving[index] & ~_warped(key_frames.moving[other], motion)).cpu().numpy()
    rows, columns = np.nonzero(trusted)
    offset = motion.offset.cpu().numpy()[:, rows, columns].astype(np.float64)
    places = np.stack([columns + 0.5, rows + 0.5]).astype(np.float64)
    rays, turned_by, moved, there = _rays(key_frames, camera, index, other, places, (3, height, width))
    turned = turned_by @ rays
    seen = np.linalg.inv(there) @ np.concatenate([places + offset, np.ones((1, places.shape[1]))])
    # A point of disparity w lies at turned + w moved, up to a factor; that it is seen where it is gives two equations,
    # w along = across.
    along = moved[:2, None] - seen[:2] * moved[2]
    across = seen[:2] * turned[2] - turned[:2]
    focal = np.diag(there)[:2, None] / np.maximum(turned[2], 1e-6)
    length = np.maximum((along**2).sum(axis=0), 1e-30)
    true = (along * across).sum(axis=0) / length
    beside = across - true * along
    relative = key_frames.disparities[index].cpu().numpy()[rows, columns].astype(np.float64)
    matches = _Matches(
        relative,
        true,
        np.linalg.norm(along * focal, axis=0),
        np.linalg.norm(beside * focal, axis=0),
        np.linalg.norm(across * focal, axis=0),
        np.full(len(rows), index),
        np.full(len(rows), other),
        places.T,
    )
    return matches, float(trusted.mean())


def _warped(moving: torch.Tensor, motion: Motion) -> torch.Tensor:
    """(h, w) bool: which pixels were moving in the earlier frame, whose mask this is."""
    return motion.warped(moving.float()) > 0


def _pair(key_frames: KeyFrames, camera: CameraPath, matches: _Matches) -> PointsOfPair:
    """Matches of one key frame in another one, in the larger images."""
    index, other = int(matches.frame[0]), int(matches.other[0])
    images = [key_frames.larger[one].float() for one in (index, other)]
    places = matches.place.T * _scale(images[0], key_frames.images[index].shape)
    rays, turned_by, moved, there = _rays(key_frames, camera, index, other, places, images[0].shape)
    return PointsOfPair(matches.relative, places, turned_by @ rays, moved, there, *images)


def _scale(image: torch.Tensor, shape: Sequence[int]) -> np.ndarray:
    """(2, 1) pixels of an image for one of another of that shape (3, h, w)."""
    return np.array([[image.shape[2] / shape[2]], [image.shape[1] / shape[1]]])


def _rays(
    key_frames: KeyFrames, camera: CameraPath, index: int, other: int, places: np.ndarray, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rays (3, N) of places in images of that shape, and how a second camera sees them.

    Returns:
        The rays; rotation (3, 3) and translation (3,) to the second camera; its intrinsics (3, 3) for such images.
    """
    first, second = (int(key_frames.frames[one]) for one in (index, other))
    size = np.array([shape[2] / camera.width, shape[1] / camera.height, 1.0])[:, None]
    rays = np.linalg.inv(size * camera.intrinsics[first]) @ np.concatenate([places, np.ones((1, places.shape[1]))])
    pose = camera.world_to_camera[second] @ invert_rigid(camera.world_to_camera[first])
    return rays, pose[:3, :3], pose[:3, 3], size * camera.intrinsics[second]


def _robust_fit(matches: _Matches, offset: float | None) -> tuple[float, float]:
    """Factor and shift of relative disparity: the best of many pairs of matches, then reweighted least squares.

    The residual is in pixels, since near points and long baselines tell disparity best; its weight is Cauchy's.
    """
    x, y, pixels = matches.relative, matches.true, matches.pixels
    if offset is not None:
        x = x + offset  # and the shift stays 0
    picked = np.random.default_rng(0).integers(0, len(x), (_TRIES, 2))
    run, rise = x[picked[:, 1]] - x[picked[:, 0]], y[picked[:, 1]] - y[picked[:, 0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = rise / run if offset is None else y[picked[:, 0]] / x[picked[:, 0]]
    factors = np.where(np.isfinite(factors), factors, 0.0)
    shifts = y[picked[:, 0]] - factors * x[picked[:, 0]] if offset is None else np.zeros(_TRIES)
    sample = slice(None, None, max(1, len(x) // 2000))
    residuals = np.abs(factors[:, None] * x[sample] + shifts[:, None] - y[sample]) * pixels[sample]
    best = int(np.median(residuals, axis=1).argmin())
    factor, shift = float(factors[best]), float(shifts[best])
    for _ in range(_ROUNDS):
        residual = np.abs(factor * x + shift - y) * pixels
        weight = pixels**2 / (1 + (residual / (2 * np.median(residual) + 1e-9)) ** 2)
        total = weight.sum()
        middle_x, middle_y = ((weight * x).sum() / total, (weight * y).sum() / total) if offset is None else (0.0, 0.0)
        spread = (weight * (x - middle_x) ** 2).sum()
        if spread <= 1e-12 * (weight * x * x).sum():
            break  # all of one depth, which tells the unit but not the offset
        factor = float((weight * (x - middle_x) * (y - middle_y)).sum() / spread)
        shift = float(middle_y - factor * middle_x)
    return factor, shift if offset is None else factor * offset
