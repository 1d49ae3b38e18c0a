"""The camera path of the active shot, read again after edits: what viewports draw and coverage asks about.

Only paths that keyframes alone determine are followed; `ShotPath.sample` reads any other.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cameras import CameraError, CameraPath

from ..blender_types import Context, current_context
from ..cameras.cuts import sample_cuts
from ..live.each_scene import OfEachScene, areas_of
from ..live.query import add_query
from ..scenes.link import is_scene_object
from ..scheduler import LIVE_SECONDS, scheduler
from ..shots.objects import shot_cuts, shot_objects
from ..shots.properties import active_shot
from ..shots.source_time import is_driven, source_frames_of, time_signature
from ..takes.requests import shot_range
from .path import cuts_in_slices, is_keyframed_only

# Cameras this close see the same: in scene units and in pixels.
SAME_POSE, SAME_INTRINSICS = 1e-6, 1e-3
# Settings of the render that change what the camera sees.
_RENDER_SETTINGS = (
    *("resolution_x", "resolution_y", "resolution_percentage", "pixel_aspect_x", "pixel_aspect_y"),
    *("frame_map_old", "frame_map_new"),
)
# Of each tick, for evaluating curves; the rest of the budget is for everything else.
_SLICE_SECONDS = LIVE_SECONDS / 2


class ShotPath:
    """The camera path of a Blender scene's active shot.

    Attributes:
        path: in the imported scene's world; None before it was read, and without a shot.
        frame_start: Blender frame of the path's first frame.
        source_frames: the footage frame, from 0, that each frame shows; None where time runs as it was filmed.
        cut_starts: indices of the path's frames that begin a cut, in rising order; the first is 0.
        number: rises whenever the path has changed, or the time along it.
        problem: why the path cannot be followed, for people; "" while all is well.
        stale: whether something changed since the path was last read.
    """

    def __init__(self) -> None:
        """Start without a path."""
        self.number = 0
        self.reset()

    def reset(self) -> None:
        """Forget the path."""
        self.path: CameraPath | None = None
        self.frame_start = 0
        self.source_frames: tuple[int, ...] | None = None
        self.cut_starts: tuple[int, ...] = ()
        self.problem = ""
        self.stale = True
        self._signature: tuple[object, ...] = ()
        self._reading: Generator[None, None, CameraPath] | None = None
        self._read_frames: tuple[int, tuple[int, ...]] = (0, ())

    def drop(self) -> None:
        """Nothing is waited for."""

    def step(self) -> None:
        """Read on, or again if something has changed, while anybody wants to know; in every tick."""
        context = current_context()
        scene = context.scene
        if not (scene.ex4d_path.show or scene.ex4d_coverage.live or scene.ex4d_draft.live):
            if self.path is not None:
                self.reset()
        elif self._reading is not None:
            self._read_on(self._reading)
            scheduler.tick_soon()
        elif self._is_due(context):
            self._begin(context)

    def sample(self, context: Context) -> None:
        """Read the path of any rig now, by changing frames.

        Raises:
            CameraError: see `cameras.sampling.sample_camera`.
        """
        self._reading = None
        scene_object, _ = shot_objects(context)
        assert scene_object is not None  # checked by the caller
        first, last = shot_range(context.scene, scene_object)
        cuts = shot_cuts(context, first, last)
        path = sample_cuts(cuts, scene_object)
        self._keep(path, first, tuple(cut.frame_start - first for cut in cuts))

    def _is_due(self, context: Context) -> bool:
        """Whether the path has to be read again; what cannot be read needs no reading."""
        scene, (scene_object, camera) = context.scene, shot_objects(context)
        if scene_object is None or camera is None:
            if self.path is not None:
                self.reset()
                self._redraw()
            return False
        frames = shot_range(scene, scene_object)
        signature = (
            scene_object.ex4d_scene.digest,
            frames,
            *((cut.camera.name_full, cut.frame_start) for cut in shot_cuts(context, *frames)),
            time_signature(active_shot(scene)),
            *(getattr(scene.render, name) for name in _RENDER_SETTINGS),
        )
        if signature != self._signature:
            self._signature, self.stale = signature, True
        return self.stale

    def _begin(self, context: Context) -> None:
        scene_object, _ = shot_objects(context)
        assert scene_object is not None  # it is due
        first, last = shot_range(context.scene, scene_object)
        cuts = shot_cuts(context, first, last)
        self.stale = False
        has_rig = not all(is_keyframed_only(cut.camera, scene_object) for cut in cuts)
        if has_rig or is_driven(active_shot(context.scene)):
            self.problem = iface_("This camera has a rig: press Refresh after changes")
            return
        self.problem = ""
        self._read_frames = (first, tuple(cut.frame_start - first for cut in cuts))
        self._reading = cuts_in_slices(cuts, scene_object)
        scheduler.tick_soon()

    def _read_on(self, reading: Generator[None, None, CameraPath]) -> None:
        deadline = time.perf_counter() + _SLICE_SECONDS
        try:
            while time.perf_counter() < deadline:
                next(reading)
        except StopIteration as end:
            self._reading = None
            self._keep(end.value, *self._read_frames)
        except (CameraError, ReferenceError) as error:  # the camera was deleted meanwhile, or is not a perspective one
            self._reading = None
            self.problem = str(error)

    def _keep(self, path: CameraPath, frame_start: int, cut_starts: tuple[int, ...]) -> None:
        context = current_context()
        scene_object, _ = shot_objects(context)
        shot, last, shown = active_shot(context.scene), frame_start + len(path) - 1, None
        if scene_object is not None:
            shown = source_frames_of(shot, scene_object, frame_start, last)
        about = frame_start, cut_starts, shown
        if (self.frame_start, self.cut_starts, self.source_frames) != about or not _same(self.path, path):
            self.path, (self.frame_start, self.cut_starts, self.source_frames) = path, about
            self.number += 1
            self._redraw()
        self.problem = ""

    def _redraw(self) -> None:
        for area in areas_of(current_context().scene, {"VIEW_3D"}):
            area.tag_redraw()


shot_paths = OfEachScene(ShotPath)


def _same(one: CameraPath | None, other: CameraPath) -> bool:
    return (
        one is not None
        and (one.width, one.height) == (other.width, other.height)
        and one.world_to_camera.shape == other.world_to_camera.shape
        and bool((np.abs(one.world_to_camera - other.world_to_camera) <= SAME_POSE).all())
        and bool((np.abs(one.intrinsics - other.intrinsics) <= SAME_INTRINSICS).all())
    )


@bpy.app.handlers.persistent
def _after_update(blender_scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    for update in depsgraph.updates:
        changed = update.id
        is_ours = isinstance(changed, bpy.types.Object) and (changed.type == "CAMERA" or is_scene_object(changed))
        moved = is_ours and update.is_updated_transform
        if moved or isinstance(changed, (bpy.types.Action, bpy.types.Camera)):
            shot_paths.of(blender_scene).stale = True


HANDLERS = (("depsgraph_update_post", _after_update),)


def register() -> None:
    """Follow the artist's edits."""
    add_query(shot_paths)
