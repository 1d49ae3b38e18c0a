"""Draws the path of the shot's camera into 3D viewports, coloured by coverage, with the worst frame marked.

Batches are kept until the path or its coverage changes, so that a redraw only hands them to the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import blf
import bpy
import gpu
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy_extras.view3d_utils import location_3d_to_region_2d
from gpu_extras.batch import batch_for_shader
from mathutils import Vector

from ex4d_core.cameras import CameraPath
from ex4d_core.scene_manifest import SceneError

from ..shots.objects import shot_objects
from .drawing import colors_of
from .live_coverage import ShownCoverage, live_coverage
from .path_lines import Lines, frustum_lines, path_lines
from .shot_path import shot_paths

# Without coverage the path is as light as Blender's own paths.
_PLAIN = (0.85, 0.85, 0.85, 0.8)
# Size of frustums, as shares of the subject's distance; the worst frame's is larger.
_SIZE, _WORST_SIZE = 0.06, 0.11
# In pixels of an interface at scale 1.
_LINE_WIDTH, _WORST_WIDTH, _TEXT_SIZE, _TEXT_OFFSET = 1.5, 3.0, 12.0, 8.0
# From this visible fraction on no frame is bad enough to be marked as the worst.
_ALL_VISIBLE = 0.995
_SHADER = "POLYLINE_FLAT_COLOR"


class EX4D_PathDisplay(bpy.types.PropertyGroup):
    """Whether the camera path is drawn (``Scene.ex4d_path``)."""

    show: bpy.props.BoolProperty(
        name="Path in Viewports",
        description="Draw the path of the shot's camera into 3D viewports, colored by coverage where it is known, and "
        "the pivot",
        default=True,
    )


@dataclass(frozen=True)
class KeptBatches:
    """What is drawn of a path.

    Attributes:
        number: of the path, see `ShotPath.number`.
        coverage: what it is coloured by, None if unknown.
        lines: path and frustums.
        worst: frustum of the worst frame, None if no frame stands out.
        worst_eye: (3,) where the camera of the worst frame is, in the scene's world.
        text: names the worst frame, for people.
    """

    number: int
    coverage: ShownCoverage | None
    lines: gpu.types.GPUBatch
    worst: gpu.types.GPUBatch | None = None
    worst_eye: tuple[float, float, float] = (0.0, 0.0, 0.0)
    text: str = ""


_kept: dict[int, KeptBatches] = {}
_handlers: list[Any] = []


def frame_colors(frames: int, frame_start: int, coverage: ShownCoverage | None) -> np.ndarray:
    """(T, 4) float32, the colour of each frame of a path; plain without coverage of the same frames."""
    if coverage is None or (coverage.frame_start, len(coverage.seen)) != (frame_start, frames):
        return np.tile(np.array(_PLAIN, dtype=np.float32), (frames, 1))
    return colors_of(coverage.seen, coverage.fresh)


def worst_frame(frames: int, frame_start: int, coverage: ShownCoverage | None) -> int | None:
    """Index of the frame that sees least of the footage; None if that is unknown, or if all frames see all of it."""
    if coverage is None or (coverage.frame_start, len(coverage.seen)) != (frame_start, frames):
        return None
    least = int(coverage.seen.argmin())
    return least if coverage.seen[least] < _ALL_VISIBLE else None


def _batches(blender_scene: bpy.types.Scene, scene_object: bpy.types.Object) -> KeptBatches | None:
    """The kept batches, or new ones if the path or its coverage has changed; None without a path."""
    key, shot_path = blender_scene.session_uid, shot_paths.of(blender_scene)
    if shot_path.path is None:
        return None
    coverage = live_coverage.of(blender_scene).shown if blender_scene.ex4d_coverage.live else None
    kept = _kept.get(key)
    if kept is None or kept.number != shot_path.number or kept.coverage is not coverage:
        try:
            distance = live_coverage.of(blender_scene).open(scene_object).manifest.pivot_distance
        except SceneError:  # the files are gone, which the panels say; the path can be drawn all the same
            distance = 1.0
        kept = _kept[key] = _make(
            shot_path.path, shot_path.cut_starts, shot_path.frame_start, shot_path.number, coverage, distance
        )
    return kept


def _make(
    path: CameraPath,
    cut_starts: tuple[int, ...],
    frame_start: int,
    number: int,
    coverage: ShownCoverage | None,
    distance: float,
) -> KeptBatches:
    colors = frame_colors(len(path), frame_start, coverage)
    lines = _batch(path_lines(path, cut_starts, _SIZE * distance), colors)
    worst = worst_frame(len(path), frame_start, coverage)
    if worst is None or coverage is None:
        return KeptBatches(number, coverage, lines)
    text = iface_("Least: {fraction} at frame {frame}")
    return KeptBatches(
        number,
        coverage,
        lines,
        _batch(frustum_lines(path, worst, _WORST_SIZE * distance), colors),
        tuple(path.camera_to_world[worst, :3, 3].tolist()),
        text.format(fraction=f"{coverage.seen[worst]:.0%}", frame=frame_start + worst),
    )


def _batch(lines: Lines, colors: np.ndarray) -> gpu.types.GPUBatch:
    shader = gpu.shader.from_builtin(_SHADER)
    return batch_for_shader(shader, "LINES", {"pos": lines.positions, "color": colors[lines.frames]})


def _shown_here(context: bpy.types.Context) -> tuple[KeptBatches | None, bpy.types.Object | None]:
    """What this viewport shows: nothing in a camera's view, where the path would start in the viewer's eye."""
    scene, space, view = context.scene, context.space_data, context.region_data
    if not scene.ex4d_path.show or not space.overlay.show_overlays or view is None:
        return None, None
    scene_object, _ = shot_objects(context)
    if scene_object is None or view.view_perspective == "CAMERA":
        return None, None
    return _batches(scene, scene_object), scene_object


def _draw_lines() -> None:
    context = bpy.context
    kept, scene_object = _shown_here(context)
    if kept is None or scene_object is None:
        return
    scale = context.preferences.system.ui_scale
    shader = gpu.shader.from_builtin(_SHADER)
    gpu.state.blend_set("ALPHA")
    with gpu.matrix.push_pop():
        gpu.matrix.multiply_matrix(scene_object.matrix_world)
        shader.bind()
        shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
        shader.uniform_float("lineWidth", _LINE_WIDTH * scale)
        kept.lines.draw(shader)
        if kept.worst is not None:
            shader.uniform_float("lineWidth", _WORST_WIDTH * scale)
            kept.worst.draw(shader)
    gpu.state.blend_set("NONE")


def _draw_text() -> None:
    context = bpy.context
    kept, scene_object = _shown_here(context)
    if kept is None or scene_object is None or not kept.text:
        return
    place = scene_object.matrix_world @ Vector(kept.worst_eye)
    at = location_3d_to_region_2d(context.region, context.region_data, place)
    if at is None:
        return  # behind the viewer
    scale = context.preferences.system.ui_scale
    blf.size(0, _TEXT_SIZE * scale)
    blf.color(0, 1.0, 1.0, 1.0, 1.0)
    blf.enable(0, blf.SHADOW)
    blf.shadow(0, 3, 0.0, 0.0, 0.0, 0.8)
    blf.position(0, at.x + _TEXT_OFFSET * scale, at.y + _TEXT_OFFSET * scale, 0.0)
    blf.draw(0, kept.text)
    blf.disable(0, blf.SHADOW)


CLASSES = (EX4D_PathDisplay,)
PROPERTIES = ((bpy.types.Scene, "ex4d_path", bpy.props.PointerProperty(type=EX4D_PathDisplay)),)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _kept.clear()


HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Draw into all viewports."""
    if bpy.app.background:
        return  # nothing is drawn there
    for draw, moment in ((_draw_lines, "POST_VIEW"), (_draw_text, "POST_PIXEL")):
        _handlers.append(bpy.types.SpaceView3D.draw_handler_add(draw, (), "WINDOW", moment))


def unregister() -> None:
    """Stop drawing."""
    while _handlers:
        bpy.types.SpaceView3D.draw_handler_remove(_handlers.pop(), "WINDOW")
    _kept.clear()
