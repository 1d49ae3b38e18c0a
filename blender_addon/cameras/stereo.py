"""Blender's stereoscopy as the two eyes of a shot: interocular and convergence distance of its cameras, on every frame.

Blender's Stereoscopy (Output properties) says that there are two eyes, and each camera's own Stereoscopy where they
are; an artist may keyframe both distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ex4d_core.cameras import CameraError
from ex4d_core.stereo import PivotEye, StereoSettings

from ..blender_types import current_context, enum_items
from .cuts import Cut
from .keyframes import camera_data
from .sampling import sample_frames

_PIVOTS: dict[str, PivotEye] = {"LEFT": "left", "RIGHT": "right", "CENTER": "center"}


@dataclass(frozen=True)
class _Eyes:
    """A camera's eyes on one frame: distances in Blender's units of the imported scene's, 0 for parallel eyes."""

    interaxial: float
    convergence: float


def takes_both_eyes(render: bpy.types.RenderSettings) -> bool:
    """Whether Blender would render a left and a right eye; with Multi-View it renders other cameras."""
    return render.use_multiview and render.views_format == "STEREO_3D"


def sample_stereo(cuts: Sequence[Cut], scene_object: bpy.types.Object) -> StereoSettings:
    """The eyes of every frame of some cuts, side by side; one eye where Stereoscopy is off.

    Args:
        cuts: one after the other, at least one.
        scene_object: the imported scene, whose scale counts.

    Raises:
        CameraError: see `sample_camera`; a camera's eyes turn inwards, or cameras differ in pivot or mode.
    """
    if not takes_both_eyes(current_context().scene.render):
        return StereoSettings()
    pivots = {camera_data(cut.camera).stereo.pivot for cut in cuts}
    if len(pivots) > 1:
        raise CameraError("the shot's cameras have different Stereoscopy pivots; give them the same")
    samples: list[_Eyes] = []
    for cut in cuts:
        _require_shifted(camera_data(cut.camera))
        samples += sample_frames(
            cut.camera,
            cut.frame_start,
            cut.frame_end,
            lambda camera=cut.camera: _current_eyes(camera, scene_object),
        )
    convergences = [one.convergence for one in samples]
    if any(convergences) and not all(convergences):
        raise CameraError("some of the shot's cameras have parallel eyes and others off-axis ones; choose one mode")
    return StereoSettings(
        "side-by-side",
        _shortest([one.interaxial for one in samples]),
        _shortest(convergences) if any(convergences) else None,
        _PIVOTS[pivots.pop()],
    )


def _require_shifted(camera: bpy.types.Camera) -> None:
    """Raise CameraError where a camera's eyes turn inwards, which shifts images vertically, too."""
    mode = camera.stereo.convergence_mode
    if mode == "TOE":
        name = enum_items(camera.stereo, "convergence_mode")[mode].name
        raise CameraError(
            f"Stereoscopy of the camera {camera.name!r} is {name}, whose images do not fit each other vertically; "
            "choose Off-Axis or Parallel"
        )


def _current_eyes(camera: bpy.types.Object, scene_object: bpy.types.Object) -> _Eyes:
    depsgraph = current_context().evaluated_depsgraph_get()
    stereo = camera_data(camera.evaluated_get(depsgraph)).stereo
    scene_matrix = np.array(scene_object.evaluated_get(depsgraph).matrix_world, dtype=np.float64)
    scale = float(np.linalg.norm(scene_matrix[:3, 0]))
    if not stereo.interocular_distance > 0:
        raise CameraError(
            f"Interocular Distance of the camera {camera.name!r} is {stereo.interocular_distance:g}; it must be above 0"
        )
    convergence = 0.0 if stereo.convergence_mode == "PARALLEL" else stereo.convergence_distance / scale
    return _Eyes(stereo.interocular_distance / scale, convergence)


def _shortest(values: Sequence[float]) -> tuple[float, ...]:
    """One value where all are the same."""
    return (values[0],) if len(set(values)) == 1 else tuple(values)
