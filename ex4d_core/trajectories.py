"""Camera moves by name: EX-4D's own presets, reproduced exactly, and common moves of film cameras.

A trajectory needs only the source camera's intrinsics and the pivot; it returns a `CameraPath`. Every move starts at
the source camera, so frame 0 of a take is the footage's own view. EX-4D's presets turn around the point that it finds,
ours around a `Pivot`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np

from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.errors import RequestError
from ex4d_core.pivots import DEFAULT_PIVOT, Pivot
from ex4d_core.scene import PlacedFootage
from ex4d_core.schema import Codec, Option, Range, Settings

# EX-4D's presets turn around a point this far behind the nearest surface of frame 0 (scene units).
SUBJECT_BEHIND_NEAREST = 0.15

# EX-4D's moves rise by this share of the radius on their way round, in this many frames.
_REFERENCE_RISE = 0.2
REFERENCE_FRAMES = 49

Easing = Literal["linear", "ease_in", "ease_out", "ease_in_out"]
EASINGS: tuple[str, ...] = get_args(Easing)

PivotPlace = Pivot | str | float | Sequence[float]

# name: (what it does, what `amount` means, its default)
PRESETS: dict[str, tuple[str, str, float]] = {
    "30": ("EX-4D's arc of 30 degrees; any other number of degrees works, negative to the left", "unused", 0.0),
    "60": ("EX-4D's arc of 60 degrees", "unused", 0.0),
    "90": ("EX-4D's arc of 90 degrees", "unused", 0.0),
    "180": ("EX-4D's ellipse: far out to the right, to the left, and back to the source view", "unused", 0.0),
    "orbit": ("circle around the subject at a constant distance", "degrees to the right", 30.0),
    "zoom_in": ("longer lens, the camera stays", "factor of the focal length", 2.0),
    "zoom_out": ("shorter lens, the camera stays", "factor of the focal length", 1.5),
    "dolly_in": ("move towards the subject", "fraction of its distance", 0.4),
    "dolly_out": ("move away from the subject", "fraction of its distance", 0.4),
    "dolly_zoom": ("move in while the lens widens, so the subject keeps its size", "fraction of its distance", 0.4),
    "truck": ("move sideways without turning", "fraction of the subject's distance, positive to the right", 0.3),
    "pedestal": ("move up without turning", "fraction of the subject's distance, negative for down", 0.3),
    "crane": ("rise while looking at the subject", "fraction of the subject's distance, negative for down", 0.4),
}


def _preset_help() -> str:
    named = {name: row for name, row in PRESETS.items() if not name.isdigit()}
    moves = "; ".join(f"{name}: {what} (amount: {unit})" for name, (what, unit, _) in named.items())
    return f"camera move: degrees of EX-4D's arc, negative to the left (180: its ellipse); or {moves}"


@dataclass(frozen=True)
class Trajectory(Settings):
    """A camera move by name.

    Attributes:
        preset: a key of `PRESETS`, or a number of degrees as text ("30", "-45"): EX-4D's arc, and its ellipse for 180.
        amount: how far; its meaning and default are in `PRESETS`. None takes the default.
        elevation: degrees by which arcs and orbits also climb, reached at the end of the move.
        easing: how the move starts and ends.
        pivot: the point that the move is about, which keeps its place in the picture on orbits, dollies and dolly
            zooms; a `Pivot`, or what `Pivot.of` makes one of. EX-4D's moves have a point of their own, see
            `subject_distance`.

    Raises:
        RequestError: no such preset, an invalid field, or a pivot for a move that has its own or none.
    """

    preset: Annotated[str, Option(_preset_help(), aliases=("--cam",))] = "30"
    amount: Annotated[float | None, Option("how far the preset moves; see --preset")] = None
    elevation: Annotated[
        float, Range(above=-90, below=90), Option("degrees by which arcs and orbits also climb", metavar="DEGREES")
    ] = 0.0
    easing: Annotated[Easing, Option("how the move starts and ends")] = "linear"
    pivot: Annotated[
        Pivot,
        Codec(Pivot, Pivot.plain, Pivot.of),
        Option(
            "what the move is about: middle (median depth of what stands out in the picture's middle third), nearest, "
            "a distance in scene units, X,Y of a pixel, or X,Y,Z in the scene's world; EX-4D's arcs have a pivot of "
            "their own",
            metavar="PIVOT",
        ),
    ] = DEFAULT_PIVOT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in PRESETS and not is_degrees(self.preset):
            raise RequestError(
                f"unknown camera preset {self.preset!r:.80}: expected a number of degrees or one of "
                f"{', '.join(PRESETS)}"
            )
        if self.pivot != DEFAULT_PIVOT and not has_pivot(self.preset):
            about = "turns around EX-4D's own point" if is_degrees(self.preset) else "moves around nothing"
            raise RequestError(f"preset {self.preset} {about}, so it takes no pivot: leave it out, or use preset orbit")


def arc(degrees: float, *, elevation: float = 0.0, easing: Easing = "linear") -> Trajectory:
    """EX-4D's arc around the subject, positive to the right; its ellipse for 180 degrees."""
    return Trajectory(f"{degrees:g}", None, elevation, easing)


def orbit(
    degrees: float = 30.0, *, elevation: float = 0.0, easing: Easing = "linear", pivot: PivotPlace = "middle"
) -> Trajectory:
    """A circle around the pivot at a constant distance; ``degrees`` are positive to the right.

    ``pivot`` is "middle", "nearest", a distance, (x, y) of a pixel, or (x, y, z) in the scene's world; see `Pivot`.
    """
    return Trajectory("orbit", degrees, elevation, easing, Pivot.of(pivot))


def move(
    preset: str, amount: float | None = None, *, easing: Easing = "linear", pivot: PivotPlace = "middle"
) -> Trajectory:
    """Any camera move by name, such as ``move("dolly_in", 0.4)``; see `PRESETS` for names and amounts.

    ``pivot`` is as in `orbit`.
    """
    return Trajectory(preset, amount, easing=easing, pivot=Pivot.of(pivot))


def is_degrees(preset: str) -> bool:
    """Whether a preset is one of EX-4D's moves, which are named by their degrees."""
    return _degrees(preset) is not None


def has_pivot(preset: str) -> bool:
    """Whether a preset is about a pivot that can be chosen: all but EX-4D's, and zooms."""
    return not is_degrees(preset) and not preset.startswith("zoom")


def subject_distance(depth: np.ndarray) -> float:
    """Distance of the point that EX-4D's moves turn around, from the smallest depth of frame 0.

    The outermost pixels do not count, where there are others: EX-4D's mesh has its border there.

    Args:
        depth: (H, W), of frame 0, along z, scene units.

    Raises:
        RequestError: the depth is not positive and finite.
    """
    inner = depth[1:-1, 1:-1] if min(depth.shape) > 2 else depth
    nearest = float(inner.min())
    if not math.isfinite(nearest) or nearest <= 0:
        raise RequestError(f"the nearest depth must be positive, not {nearest}; check the depth of frame 0")
    return nearest + SUBJECT_BEHIND_NEAREST


def build_path(
    trajectory: Trajectory, frames: int, intrinsics: np.ndarray, width: int, height: int, pivot: float | np.ndarray
) -> CameraPath:
    """The camera of every frame of a move.

    Args:
        frames: T, at least 1; the move spans all of them.
        intrinsics: (3, 3) of the source camera, in pixels of a ``width`` x ``height`` frame.
        pivot: (3,) in the axes of the source camera, or its distance along their z, in scene units; see `Pivot.in_view`
            and, of EX-4D's moves, which have it on the z axis, `subject_distance`.

    Raises:
        RequestError: the amount would put the camera on or past the pivot, or the lens at zero.
    """
    if frames < 1:
        raise RequestError(f"a camera move needs at least 1 frame, not {frames}")
    time = ease(np.linspace(0.0, 1.0, frames), trajectory.easing)
    point = np.array([0.0, 0.0, pivot]) if np.ndim(pivot) == 0 else np.asarray(pivot, dtype=np.float64)
    degrees = _degrees(trajectory.preset)
    if degrees is not None:
        eye = _reference_eye(time, degrees, point[2], ellipse=abs(degrees) == 180)
        world_to_camera = look_at(_elevate(eye, point, trajectory.elevation * time), point)
        zoom = np.ones(frames)
    else:
        amount = PRESETS[trajectory.preset][2] if trajectory.amount is None else trajectory.amount
        move = _Move(trajectory.preset, amount, trajectory.elevation, point)
        world_to_camera, zoom = move.cameras(time)
    path_intrinsics = np.repeat(np.asarray(intrinsics, dtype=np.float64)[None], frames, axis=0)
    path_intrinsics[:, 0, 0] *= zoom
    path_intrinsics[:, 1, 1] *= zoom
    return CameraPath(world_to_camera, path_intrinsics, width, height)


def reference_path(
    degrees: int, frames: int, intrinsics: np.ndarray, width: int, height: int, distance: float
) -> CameraPath:
    """The camera of every frame of EX-4D's own recon.py, whose moves are made for 49 frames.

    With another number of frames they go farther than `build_path`'s, by `reference_rounds`.

    Args:
        degrees: its --cam; 180 is its ellipse.
        frames: T, at least 1.
        intrinsics: (3, 3), in pixels of a ``width`` x ``height`` frame.
        distance: of the subject along z, in scene units.
    """
    time = reference_rounds(frames) * np.linspace(0.0, 1.0, frames)
    eye = _reference_eye(time, degrees, distance, ellipse=degrees == 180)
    return CameraPath(look_at(eye, np.array([0.0, 0.0, distance])), intrinsics, width, height)


def reference_rounds(frames: int) -> float:
    """By what factor EX-4D's moves of so many frames go farther than those of 49: both fewer and more go farther."""
    return max(REFERENCE_FRAMES / frames, frames / REFERENCE_FRAMES)


def shot_path(
    trajectory: Trajectory, footage: PlacedFootage, *, frames: int | None = None, first_frame: int = 0
) -> CameraPath:
    """A move through a scene, which starts at the source camera's pose in footage frame ``first_frame``.

    Args:
        footage: an opened scene, or anything else with its manifest and source camera.
        frames: length of the move; None for all of the footage from ``first_frame`` on.

    Raises:
        RequestError: the footage has no such frame, or see `build_path` and `Pivot.in_view`.
    """
    manifest, source = footage.manifest, footage.source_camera()
    if not 0 <= first_frame < manifest.frames:
        raise RequestError(f"first_frame must be from 0 to {manifest.frames - 1}, not {first_frame}")
    length = manifest.frames - first_frame if frames is None else frames
    lens = source.intrinsics[first_frame]
    pivot = pivot_in_view(trajectory, footage, first_frame)
    path = build_path(trajectory, length, lens, manifest.width, manifest.height, pivot)
    return replace(path, world_to_camera=path.world_to_camera @ source.world_to_camera[first_frame])


def pivot_in_view(trajectory: Trajectory, footage: PlacedFootage, first_frame: int) -> np.ndarray:
    """(3,) the pivot of a move that starts at a frame of the footage, in the axes of its camera there.

    Raises:
        RequestError: see `Pivot.in_view`.
    """
    if is_degrees(trajectory.preset):
        return np.array([0.0, 0.0, footage.manifest.subject_distance])
    return trajectory.pivot.in_view(footage, first_frame)


def extent_of_move(frames: int | None, first_frame: int, source_frames: Sequence[int] | None) -> dict[str, Any]:
    """Length and start of a move, as `shot_path` takes them, through frames of the footage in any order.

    Args:
        frames: length of the move; None for all source frames, or all of the footage from ``first_frame`` on.
        first_frame: of the footage, without source frames.
        source_frames: the footage frame that each frame of the move shows, or None.

    Raises:
        RequestError: there is not a source frame for each frame of the move.
    """
    if source_frames is None:
        return {"frames": frames, "first_frame": first_frame}
    if frames not in (None, len(source_frames)):
        raise RequestError(
            f"frames must be left out or {len(source_frames)}, the number of source_frames, not {frames}"
        )
    return {"frames": len(source_frames), "first_frame": source_frames[0]}


def ease(time: np.ndarray, easing: str) -> np.ndarray:
    """Reshape (T,) times in [0, 1] so that a move starts and/or ends gently (quadratic, and smoothstep for both)."""
    if easing == "ease_in":
        return time**2
    if easing == "ease_out":
        return 1 - (1 - time) ** 2
    if easing == "ease_in_out":
        return time * time * (3 - 2 * time)
    return time


def _degrees(preset: str) -> float | None:
    try:
        degrees = float(preset)
    except ValueError:
        return None
    return degrees if math.isfinite(degrees) else None


def _reference_eye(time: np.ndarray, degrees: float, radius: float, *, ellipse: bool) -> np.ndarray:
    """EX-4D's camera positions (T, 3): an arc of ``degrees``, or its ellipse.

    Source: golden data of EX-4D's ``get_camera_pose``; the arc's |cos| mirrors the path beyond 90 degrees, as there.
    """
    if ellipse:
        angle = math.copysign(2 * np.pi, degrees) * time
        rise, forward = np.cos(angle) - 1, np.zeros_like(time)
    else:
        angle = np.radians(degrees) * time
        rise, forward = np.abs(np.cos(angle)) - 1, 1 - np.abs(np.cos(angle))
    return radius * np.stack([np.sin(angle), _REFERENCE_RISE * rise, forward], axis=1)


def _elevate(eye: np.ndarray, subject: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Turn (T, 3) camera positions up around the subject by (T,) degrees, keeping heading and distance."""
    offset = eye - subject
    horizontal = np.hypot(offset[:, 0], offset[:, 2])
    radius = np.linalg.norm(offset, axis=1)
    climb = np.clip(np.arctan2(-offset[:, 1], horizontal) + np.radians(degrees), -1.55, 1.55)  # short of the zenith
    flat = offset / np.maximum(horizontal, 1e-12)[:, None]
    raised = np.stack([flat[:, 0] * np.cos(climb), -np.sin(climb), flat[:, 2] * np.cos(climb)], axis=1)
    return subject + radius[:, None] * raised


@dataclass(frozen=True, eq=False)
class _Move:
    """One of our own moves: cameras and zoom for a ``pivot`` (3,) in the axes of the source camera.

    Cameras turn as they would around a pivot straight ahead. So one elsewhere keeps its place in the picture, the
    horizon stays level, and the first camera is the source camera's.
    """

    preset: str
    amount: float
    elevation: float
    pivot: np.ndarray

    def cameras(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, 4, 4) world-to-camera and the (T,) factor on the focal length."""
        eye, turn, zoom = np.zeros((len(time), 3)), np.tile(np.eye(3), (len(time), 1, 1)), np.ones(len(time))
        step = self.amount * time
        if self.preset == "orbit":
            turn = _turns(step, self.elevation * time)
            eye = self.pivot - np.einsum("tji,j->ti", turn, self.pivot)
        elif self.preset in ("zoom_in", "zoom_out"):
            if self.amount <= 0:
                raise RequestError(f"{self.preset} needs a positive focal length factor, not {self.amount:g}")
            factor = self.amount if self.preset == "zoom_in" else 1 / self.amount
            zoom = factor**time  # equal ratios per frame look like an even zoom
        elif self.preset in ("dolly_in", "dolly_zoom"):
            if self.amount >= 1:
                raise RequestError(
                    f"amount {self.amount:g} of {self.preset} ends behind the pivot: expected less than 1"
                )
            eye = step[:, None] * self.pivot
            if self.preset == "dolly_zoom":
                eye[:, :2], zoom = 0.0, 1 - step  # straight ahead: the zoom keeps the pivot in its place
        elif self.preset == "dolly_out":
            if self.amount <= -1:
                raise RequestError(f"amount {self.amount:g} of dolly_out ends behind the pivot: expected more than -1")
            eye = -step[:, None] * self.pivot
        elif self.preset == "truck":
            eye[:, 0] = step * self._distance
        else:  # pedestal and crane: up is -y
            eye[:, 1] = -step * self._distance
            if self.preset == "crane":
                turn = _following(eye, self.pivot)
        world_to_camera = np.tile(np.eye(4), (len(time), 1, 1))
        world_to_camera[:, :3, :3] = turn
        world_to_camera[:, :3, 3] = -np.einsum("tij,tj->ti", turn, eye)
        return world_to_camera, zoom

    @property
    def _distance(self) -> float:
        return float(np.linalg.norm(self.pivot))


def _turns(angle: np.ndarray, climb: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations of a camera that circles a point ahead by (T,) degrees, and climbs by (T,) degrees."""
    angle = np.radians(angle)
    ahead = np.array([0.0, 0.0, 1.0])
    around = np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=1)
    return look_at(_elevate(ahead + around, ahead, climb), ahead)[:, :3, :3]


def _following(eye: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """(T, 3, 3) pan and tilt of cameras at (T, 3) that keep a pivot (3,) where the source camera at the origin sees it.

    To the sides that is exact for a pivot at the camera's height, and else nearly so.
    """
    seen = pivot - eye
    pan = np.arctan2(seen[:, 0], seen[:, 2]) - math.atan2(pivot[0], pivot[2])
    ahead = np.sin(pan) * seen[:, 0] + np.cos(pan) * seen[:, 2]
    tilt = np.arctan2(seen[:, 1], ahead) - math.atan2(pivot[1], pivot[2])
    zero, one = np.zeros_like(pan), np.ones_like(pan)
    pans = [[np.cos(pan), zero, -np.sin(pan)], [zero, one, zero], [np.sin(pan), zero, np.cos(pan)]]
    tilts = [[one, zero, zero], [zero, np.cos(tilt), -np.sin(tilt)], [zero, np.sin(tilt), np.cos(tilt)]]
    return np.moveaxis(np.array(tilts), 2, 0) @ np.moveaxis(np.array(pans), 2, 0)
