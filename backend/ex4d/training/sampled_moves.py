"""Camera moves drawn from a distribution: circles, presets and free smooth paths, all from the source camera's view.

A drawn move has a strength, 1 as it was drawn and 0 for a camera that stands still, so that its unseen share can be
chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from ex4d.training.mask_settings import TRAVELLING, MoveSettings
from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.trajectories import EASINGS, PRESETS, Easing, Trajectory, build_path, ease, is_degrees

# Half waves of a free path, from slow to fast; a hand-held or flown camera has less of the fast ones.
_HALF_WAVES = 3
# Moves towards the subject go this share of its distance at most: at all of it, nothing of the clip is left.
_FARTHEST_IN = 0.9


@dataclass(frozen=True, eq=False)
class SampledMove:
    """A camera move that was drawn.

    Attributes:
        kind: "orbit", "preset" or "free".
        words: what it is, for people.
        easing: one of `EASINGS`.
        zoom: factor of the focal length at its end.
        preset: of `Trajectory`, of orbits and presets.
        amount: of `Trajectory`, in the preset's unit.
        elevation: degrees.
        waves: (2, half waves, 3) of a free path: the eye's, in distances of the subject, and the target's.
    """

    kind: str
    words: str
    easing: Easing
    zoom: float
    preset: str = ""
    amount: float = 0.0
    elevation: float = 0.0
    waves: np.ndarray | None = None

    def path(
        self, frames: int, intrinsics: np.ndarray, size: tuple[int, int], pivot: float, strength: float = 1.0
    ) -> CameraPath:
        """The cameras of the move in the source camera's axes.

        Args:
            frames: T, at least 2.
            intrinsics: (T, 3, 3) of the source camera, pixels.
            size: (width, height) of the image.
            pivot: distance of the subject, scene units.
            strength: 0 to 1.
        """
        if self.waves is not None:
            path = self._free_path(frames, intrinsics, size, pivot, strength)
        else:
            trajectory = self._trajectory(strength)
            path = build_path(trajectory, frames, intrinsics[0], *size, pivot)
        time = ease(np.linspace(0, 1, frames), self.easing)
        # Zooms of presets are in the path's own lens; a footage lens that zooms goes on doing so.
        lens = path.intrinsics * (intrinsics / intrinsics[:1].clip(min=1e-12))
        lens[:, :, 2] = intrinsics[:, :, 2]
        factor = self.zoom ** (strength * time)
        lens[:, 0, 0] *= factor
        lens[:, 1, 1] *= factor
        return CameraPath(path.world_to_camera, lens, *size)

    def _trajectory(self, strength: float) -> Trajectory:
        if is_degrees(self.preset) and abs(float(self.preset)) != 180:
            return Trajectory(f"{strength * float(self.preset):g}", None, strength * self.elevation, self.easing)
        if is_degrees(self.preset):  # the ellipse has one size: its strength is nothing that can be chosen
            return Trajectory(self.preset, None, 0.0, self.easing)
        amount = self.amount
        # Zooms are factors, and others distances or angles.
        amount = amount**strength if self.preset.startswith("zoom") else amount * strength
        return Trajectory(self.preset, amount, strength * self.elevation, self.easing)

    def _free_path(
        self, frames: int, intrinsics: np.ndarray, size: tuple[int, int], pivot: float, strength: float
    ) -> CameraPath:
        assert self.waves is not None, "a free path"
        time = ease(np.linspace(0, 1, frames), self.easing)
        phases = np.sin(np.pi / 2 * np.arange(1, _HALF_WAVES + 1) * time[:, None])
        eye, target = (strength * pivot * phases @ waves for waves in self.waves)
        target[:, 2] += pivot
        return CameraPath(look_at(eye, target), intrinsics[0], *size)


def draw_move(settings: MoveSettings, random: np.random.Generator) -> SampledMove:
    """Draw a move; the same generator state gives the same move."""
    weights = np.array([settings.orbit_weight, settings.preset_weight, settings.free_weight])
    kind = ("orbit", "preset", "free")[random.choice(3, p=weights / weights.sum())]
    easing = cast(Easing, EASINGS[random.integers(len(EASINGS))])
    zoom = float(np.exp(random.uniform(*np.log(settings.zoom))))
    with_zoom = f", zoom {zoom:.2f}"
    if kind == "orbit":
        degrees, climb = float(random.uniform(*settings.orbit)), float(random.uniform(*settings.elevation))
        words = f"orbit {degrees:.0f} degrees, elevation {climb:.0f}{with_zoom}"
        return SampledMove(kind, words, easing, zoom, "orbit", degrees, climb)
    if kind == "preset":
        presets = settings.presets or TRAVELLING
        name = presets[random.integers(len(presets))]
        share = float(random.uniform(*settings.amount))
        sign = -1.0 if random.random() < 0.5 else 1.0
        return _drawn_preset(name, share, sign, easing, zoom)
    reach = float(random.uniform(*settings.reach))
    waves = random.normal(size=(2, _HALF_WAVES, 3)) / np.arange(1, _HALF_WAVES + 1)[:, None]
    # Scaled so that the farthest point of the path is as far as was drawn.
    dense = np.sin(np.pi / 2 * np.arange(1, _HALF_WAVES + 1) * np.linspace(0, 1, 32)[:, None])
    beside = math.tan(math.radians(settings.turn))
    for row, farthest in zip(waves, (reach, beside), strict=True):
        row *= farthest / max(1e-9, np.linalg.norm(dense @ row, axis=1).max())
    return SampledMove(kind, f"free path, reach {reach:.2f}{with_zoom}", easing, zoom, waves=waves)


def _drawn_preset(name: str, share: float, sign: float, easing: Easing, zoom: float) -> SampledMove:
    """A preset by a share of its amount, to either side where it has two."""
    if is_degrees(name):
        degrees = sign * float(name) * (1.0 if abs(float(name)) == 180 else min(share, 90 / abs(float(name))))
        return SampledMove("preset", f"arc {degrees:.0f} degrees", easing, 1.0, f"{degrees:g}")
    default = PRESETS[name][2]
    if name.startswith("zoom"):
        factor = 1 + (default - 1) * share
        return SampledMove("preset", f"{name} {factor:.2f}", easing, 1.0, name, factor)
    amount = default * share
    if name in ("dolly_in", "dolly_zoom"):
        amount = min(amount, _FARTHEST_IN)
    if name in ("orbit", "truck", "pedestal", "crane"):
        amount *= sign
    with_zoom = "" if name == "dolly_zoom" else f", zoom {zoom:.2f}"
    return SampledMove("preset", f"{name} {amount:.2f}{with_zoom}", easing, zoom if with_zoom else 1.0, name, amount)


def turned_degrees(path: CameraPath, pivot: float) -> float:
    """How far a path turns around the subject at most: degrees between the first and the farthest direction to it.

    Args:
        path: in the source camera's axes, in which the subject lies on the z axis at the distance ``pivot``.
    """
    offsets = path.camera_to_world[:, :3, 3] - [0.0, 0.0, pivot]
    lengths = np.linalg.norm(offsets, axis=1)
    cosine = -offsets[:, 2] / np.where(lengths > 0, lengths, 1.0)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())
