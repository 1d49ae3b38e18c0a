"""Operators that save the active shot's move as an asset, and add cameras from such assets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_rpt as report_

from ex4d_core.errors import RequestError

from ..blender_types import Context, Operator, current_context
from ..errors import reports_errors
from ..scenes.link import chosen_scene_object, collection_for, link_of, open_scene
from ..shots.objects import NeedsShot, shot_cuts, shot_objects
from ..shots.properties import active_shot
from ..shots.source_time import source_frames_of
from ..takes.requests import shot_range
from .cuts import sample_cuts
from .keyframes import animate_with_few_keys, new_camera
from .move_assets import load_action, placed_move, relative_move, save_action
from .operators import AddsCamera, time_of_move
from .pivots import pivot_distance
from .saved_moves import ADD_ASSET_CAMERA, SAVE_MOVE

_LOCAL = "LOCAL"
# Blender does not keep the texts of computed choices, so they are kept here.
_library_items: list[tuple[str, str, str]] = []


def _libraries(_: Any, __: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    """This file, and the asset libraries of the preferences."""
    libraries = current_context().preferences.filepaths.asset_libraries
    _library_items[:] = [
        (_LOCAL, "Current File", "Keep the asset in this file"),
        *((library.name, library.name, library.path) for library in libraries),
    ]
    return _library_items


class EX4D_OT_save_move(NeedsShot, Operator):
    """Save the active shot's camera move as an asset that fits other scenes."""

    bl_idname = SAVE_MOVE
    bl_label = "Save Move as Asset"
    bl_options = {"REGISTER", "UNDO"}

    asset_name: bpy.props.StringProperty(name="Name", description="Name of the asset", options={"SKIP_SAVE"})
    library: bpy.props.EnumProperty(name="Library", description="Where the asset is kept", items=_libraries)

    def invoke(self, context: Context, _: bpy.types.Event) -> set[str]:
        self.asset_name = active_shot(context.scene).label
        return context.window_manager.invoke_props_dialog(self, confirm_text=self.bl_label)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        scene_object, _ = shot_objects(context)
        assert scene_object is not None  # polled
        first, last = shot_range(context.scene, scene_object)
        path = sample_cuts(shot_cuts(context, first, last), scene_object)
        package = open_scene(scene_object)
        shown = source_frames_of(active_shot(context.scene), scene_object, first, last)
        first_frame = first - link_of(scene_object).frame_start if shown is None else shown[0]
        if not 0 <= first_frame < package.manifest.frames:
            raise RequestError(f"the shot starts at frame {first}, outside the footage; move its first frame")
        distance = pivot_distance(scene_object, package, first_frame, context)
        move = relative_move(path, package.source_camera(), first_frame, distance)
        action = save_action(move, self.asset_name or active_shot(context.scene).label)
        if self.library != _LOCAL:
            written = _write(action, Path(context.preferences.filepaths.asset_libraries[self.library].path))
            bpy.data.actions.remove(action)
            self.report({"INFO"}, report_("Saved to {path}").format(path=written))
        return {"FINISHED"}


class EX4D_OT_add_asset_camera(AddsCamera, Operator):
    """Add a camera with the move of an action asset, fitted to the scene."""

    bl_idname = ADD_ASSET_CAMERA
    bl_label = "Add Camera with This Move"
    bl_options = {"REGISTER", "UNDO"}

    action: bpy.props.StringProperty(
        name="Action",
        description="Action of this file; without one, the active asset of the Asset Browser",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def draw(self, context: Context) -> None:
        self.layout.prop(self, "replace")

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        package = open_scene(scene_object)
        times = {"frame_start": link_of(scene_object).frame_start, "shown": range(package.manifest.frames)}
        times |= time_of_move(context, scene_object)
        with _chosen_action(context, self.action) as action:
            name, move = action.name, load_action(action, len(times["shown"]))
        first_frame = times["shown"][0]
        distance = pivot_distance(scene_object, package, first_frame, context)
        path = placed_move(move, package.source_camera(), first_frame, distance)
        camera = new_camera(f"Camera {name}", scene_object, collection_for(scene_object))
        animate_with_few_keys(camera, path, times["frame_start"])
        self.use(context, camera)
        return {"FINISHED"}


@contextmanager
def _chosen_action(context: Context, name: str) -> Iterator[bpy.types.Action]:
    """An action of this file, or the active asset, which is in the file as long as it is needed."""
    if name:
        if name not in bpy.data.actions:
            raise RequestError(f"this file has no action {name!r}; choose another move")
        yield bpy.data.actions[name]
        return
    asset: Any = getattr(context, "asset", None)
    if asset is None or asset.id_type != "ACTION":
        raise RequestError("no action asset is selected; select a camera move in the Asset Browser")
    if asset.local_id is not None:
        yield asset.local_id
        return
    with bpy.data.libraries.load(asset.full_library_path, link=False) as (_, wanted):
        wanted.actions = [asset.name]
    (loaded,) = wanted.actions
    if loaded is None:
        raise RequestError(f"{asset.full_library_path} has no action {asset.name!r} any more; update the Asset Browser")
    try:
        yield loaded
    finally:
        bpy.data.actions.remove(loaded)


def _write(action: bpy.types.Action, library: Path) -> Path:
    """Write an asset into a .blend file of its own, in the folder of an asset library."""
    stem = re.sub(r"[^\w-]+", "_", action.name).strip("_") or "move"
    library.mkdir(parents=True, exist_ok=True)
    path, number = library / f"{stem}.blend", 2
    while path.exists():  # nothing of the artist's is overwritten
        path, number = library / f"{stem}_{number}.blend", number + 1
    bpy.data.libraries.write(str(path), {action}, fake_user=True)
    return path


CLASSES = (EX4D_OT_save_move, EX4D_OT_add_asset_camera)
