"""Aligns per-image depth over time: each frame's scale and offset follow its neighbours', along motion.

Works on disparity (1 / depth), in which monocular models are right up to a factor and an offset. Only those two numbers
of a frame change, and afterwards small differences fade where the image allows it; edges stay where they are.

Where the camera stands still, a clip gets one scale. Where it moves, things truly come nearer or go away, and depth
alone cannot tell that from a scale that drifts: there only quick changes are removed, and slow ones are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.frame_store import FrameStore
from ex4d.depth.motion import Motion, motion_between, working_image

_FADE = 0.6  # share of the past in a pixel whose disparity has hardly changed
_SMALL_CHANGE = 0.04  # of the frame's range; a change beyond counts as true
_LEAK = 0.02  # of a frame's own scale and offset that always comes through, so that errors cannot add up for ever
_ENOUGH = 0.05  # share of a frame that must be trusted before it may change the frame
_ROUNDS = 8
_SLOW = 6.0  # frames; changes that last longer are slow
_MOVES = 0.2  # working pixels a frame that count as motion
_CONSISTENT = 0.004  # quick change of disparity under a moving camera that parallax may be and flicker need not
_MISSED = 0.5  # working pixels by which motion may be wrong
_STILL, _MOVING = 0.3, 0.6  # share of an image in motion from which on the camera may, and does, move


@dataclass(frozen=True)
class _Change:
    """What brings a frame's disparity to the scale of the frame before.

    Attributes:
        scale: factor.
        shift: offset, after it.
        moving: share of the image that moved.
        levels: a low and a high disparity of the frame.
    """

    scale: float = 1.0
    shift: float = 0.0
    moving: float = 0.0
    levels: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class _Correction:
    """What aligns a frame; and how it truly differs from the one before: now = (before - slow_shift) / slow_scale.

    `camera` is 0 where the camera stands still, 1 where it moves.
    """

    scale: float = 1.0
    shift: float = 0.0
    slow_scale: float = 1.0
    slow_shift: float = 0.0
    camera: float = 0.0


class TemporalAligner:
    """Goes over a clip twice: `observe` takes all frames in order, then `aligned` gives all frames in order.

    The motion that both passes need is estimated once and kept in a temporary file.

    Args:
        with_offset: whether frames differ by an offset as well (relative models), or by a factor only (metric ones).
        device: where motion is estimated.
    """

    def __init__(self, with_offset: bool, device: torch.device | str = "cpu") -> None:
        self._with_offset = with_offset
        self._device = torch.device(device)
        self._motions = FrameStore()
        self._previous: tuple[torch.Tensor, torch.Tensor] | None = None
        self._shots: list[list[_Change]] = []

    def observe(self, image: torch.Tensor, disparity: torch.Tensor, is_cut: bool = False) -> None:
        """First pass, one frame.

        Args:
            image: (3, H, W) in [0, 1].
            disparity: (h, w), at least 0.
            is_cut: whether it has nothing to do with the frame before.
        """
        small = working_image(image.to(self._device))
        own = _resized(disparity.to(self._device), small.shape[1:])
        change, motion = None, None
        if self._previous is not None and not is_cut:
            earlier, before = self._previous
            motion = motion_between(earlier, small)
            change = self._change(motion, before, own)
        stored = torch.zeros_like(small) if motion is None else torch.cat([motion.offset, motion.trusted[None]])
        self._motions.append(stored.cpu().numpy())
        if change is None:
            self._shots.append([_Change()])
        else:
            self._shots[-1].append(change)
        self._previous = small, own

    def aligned(self, disparities: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Second pass: the frames' disparities (h, w) again, and what they become, at least 0."""
        frames = zip(disparities, self._motions, strict=True)
        for shot in self._shots:
            previous: torch.Tensor | None = None
            # The corrections come first, so that their end takes no frame of the next shot.
            for correction, (disparity, stored) in zip(_corrections(shot), frames, strict=False):
                disparity = (correction.scale * disparity.to(self._device) + correction.shift).clamp_min(0)
                if previous is not None:
                    moved = torch.from_numpy(stored).to(self._device)
                    motion = Motion(moved[:2], moved[2] > 0)
                    before = motion.warped(_resized(previous, moved.shape[1:]))
                    expected = (before - correction.slow_shift) / correction.slow_scale
                    disparity = _faded(disparity, motion, expected, correction.camera)
                previous = disparity
                yield disparity

    def _change(self, motion: Motion, before: torch.Tensor, own: torch.Tensor) -> _Change | None:
        """None where hardly anything of the frame before is found again."""
        reference = motion.warped(before)
        flat = motion.trusted & ~_near_edge(own) & ~_near_edge(reference)
        if flat.float().mean() < _ENOUGH:
            return None
        moving = float((motion.offset.norm(dim=0)[motion.trusted] > _MOVES).float().mean())
        low, high = own[flat].quantile(own.new_tensor([0.1, 0.9])).clamp_min(1e-12).tolist()
        return _Change(*robust_scale_and_shift(own[flat], reference[flat], self._with_offset), moving, (low, high))


def _corrections(shot: list[_Change]) -> list[_Correction]:
    """For every frame of a shot; on the average over the shot they change neither scale nor offset."""
    scales = np.log([change.scale for change in shot])
    shifts = np.array([change.shift for change in shot])
    moving = np.array([change.moving for change in shot])
    camera = np.clip((_smooth(moving) - _STILL) / (_MOVING - _STILL), 0, 1)
    slow_scales, slow_shifts = camera * _smooth(scales), camera * _smooth(shifts)
    quick_scales, quick_shifts = scales - slow_scales, shifts - slow_shifts
    levels = np.array([change.levels for change in shot])
    size = np.abs(np.expm1(quick_scales)[:, None] + quick_shifts[:, None] / levels).max(axis=1)
    # Under a still camera nothing but flicker changes whole frames; under a moving one, small changes are parallax.
    flickers = np.clip(size / np.maximum(_CONSISTENT * camera, 1e-12) - 1, 0, 1)
    scale, shift, found = 0.0, 0.0, []
    for quick_scale, quick_shift in zip(flickers * quick_scales, flickers * quick_shifts, strict=True):
        shift = (1 - _LEAK) * (shift + np.exp(scale) * quick_shift)
        scale = (1 - _LEAK) * (scale + quick_scale)
        found.append((scale, shift))
    scale, shift = np.array(found).T
    scale, shift = scale - scale.mean(), (shift - shift.mean()) / np.exp(scale.mean())
    rows = zip(np.exp(scale), shift, np.exp(slow_scales), slow_shifts, camera, strict=True)
    return [_Correction(*map(float, row)) for row in rows]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means over about `_SLOW` frames, of a shot's changes; its first frame, which has none, does not count."""
    if len(values) < 2:
        return np.zeros_like(values)
    frames = np.arange(len(values))
    weights = np.exp(-((frames[:, None] - frames) ** 2) / (2 * _SLOW**2)) * (frames > 0)
    return weights @ values / weights.sum(axis=1) * (frames > 0)


def _faded(disparity: torch.Tensor, motion: Motion, expected: torch.Tensor, camera: float) -> torch.Tensor:
    """Small differences from what was expected fade; (h, w), at least 0."""
    own = _resized(disparity, expected.shape)
    flat = motion.trusted & ~_near_edge(own) & ~_near_edge(expected)
    # Where things move, the past is known as well as their motion is, and their depth may truly change.
    gradient = (_wider(own) - own).maximum(own - -_wider(-own))
    moves = ((motion.offset.norm(dim=0) > _MOVES) + camera).clamp_max(1)
    unsure = moves * (_MISSED * gradient + _CONSISTENT * own)
    change = expected - own
    change = change.sign() * (change.abs() - unsure).clamp_min(0)
    spread = float(own.quantile(0.98) - own.quantile(0.02)) + 1e-12
    weight = _FADE * torch.exp(-((change / (_SMALL_CHANGE * spread)) ** 2)) * flat
    # Only smooth corrections, so that no edge of the frame before is drawn into this one.
    correction = F.avg_pool2d((weight * change)[None, None], 3, stride=1, padding=1, count_include_pad=False)
    return (disparity + _resized(correction[0, 0], disparity.shape)).clamp_min(0)


def robust_scale_and_shift(values: torch.Tensor, target: torch.Tensor, with_shift: bool) -> tuple[float, float]:
    """The factor (and offset) that bring most values to their target; few, however wrong, do not matter.

    Least squares reweighted by Cauchy's function of the residual over its median.

    Args:
        values: (N,).
        target: (N,).
        with_shift: false keeps the offset at 0.
    """
    x, y = values.double(), target.double()
    weight = torch.ones_like(x)
    scale, shift = 1.0, 0.0
    for _ in range(_ROUNDS):
        total = weight.sum()
        centre_x = float((weight * x).sum() / total) if with_shift else 0.0
        centre_y = float((weight * y).sum() / total) if with_shift else 0.0
        spread = float((weight * (x - centre_x) ** 2).sum())
        if spread <= 1e-12 * float((weight * x * x).sum()) or spread == 0.0:
            return 1.0, (float(y.median() - x.median()) if with_shift else 0.0)
        scale = float((weight * (x - centre_x) * (y - centre_y)).sum()) / spread
        scale = min(max(scale, 0.2), 5.0)
        shift = centre_y - scale * centre_x
        residual = (y - scale * x - shift).abs()
        weight = 1 / (1 + (residual / (2 * float(residual.median()) + 1e-12)) ** 2)
    return scale, shift


def flicker(images: Iterable[np.ndarray], depths: Iterable[np.ndarray]) -> float:
    """How much depth changes from frame to frame where the image says that it is the same surface.

    Args:
        images: (H, W, 3) uint8 each.
        depths: (H, W) float32 along z each, above 0.

    Returns:
        Mean over frames and trusted pixels of |log depth - log depth before, warped along motion|: 0.01 is a change
        of one per cent a frame. It includes true motion towards the camera. 0 for a single frame.
    """
    changes: list[float] = []
    previous: tuple[torch.Tensor, torch.Tensor] | None = None
    for image, depth in zip(images, depths, strict=True):
        small = working_image(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
        own = 1 / _resized(1 / torch.from_numpy(depth), small.shape[1:])
        if previous is not None:
            earlier, before = previous
            motion = motion_between(earlier, small)
            calm = motion.trusted & ~_near_edge(own) & ~_near_edge(before)
            if calm.any():
                changes.append(float((own.log() - motion.warped(before.log())).abs()[calm].mean()))
        previous = small, own
    return float(np.mean(changes)) if changes else 0.0


def _wider(values: torch.Tensor) -> torch.Tensor:
    """(h, w), the largest of a pixel and its neighbours."""
    return F.max_pool2d(values[None, None], 3, stride=1, padding=1)[0, 0]


def _near_edge(values: torch.Tensor) -> torch.Tensor:
    """(h, w) bool: within two pixels of a step of more than a tenth."""
    pooled = values[None, None]
    high, low = F.max_pool2d(pooled, 5, 1, 2)[0, 0], -F.max_pool2d(-pooled, 5, 1, 2)[0, 0]
    return high - low > 0.1 * high.clamp_min(1e-12)


def _resized(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if values.shape == tuple(size):
        return values
    shrinks = size[0] < values.shape[0]
    return F.interpolate(values[None, None], size=list(size), mode="bilinear", antialias=shrinks)[0, 0]
