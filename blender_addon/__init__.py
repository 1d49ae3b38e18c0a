"""EX-4D for Blender: import a reconstructed scene, animate a camera, send the shot, watch the frames arrive.

One folder per feature, each with thin operators over plain functions; this module registers them in order. Everything
talks to the backend through `connection.session`, in ticks of `scheduler`; nothing here imports the backend or waits
for it.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import bpy

# numpy is Blender's own, and packages of Linux distributions may lack it.
HAS_NUMPY = find_spec("numpy") is not None

# Registered from top to bottom, unregistered from bottom to top. A module may have
# - CLASSES to register with Blender; the docstring of an operator is its tooltip;
# - PROPERTIES to add to Blender's own types, as (type, name, property);
# - HANDLERS to add to ``bpy.app.handlers``, as (name, function);
# - MENUS of Blender, or headers, to extend, as (name, function that draws);
# - `register`, called after all of these, and `unregister`, called before they are unregistered.
MODULES: tuple[ModuleType, ...] = tuple(
    import_module(f".{name}", __package__)
    for name in (
        "translations",
        "errors",
        "scheduler",
        "connection.preferences",
        "connection.local_backend",
        "connection.backend_setup",
        "connection.session",
        "connection.operators",
        "connection.panel",
        "projects.moving",
        "connection.sidebar",
        "jobs.notices",
        "jobs.tracker",
        "jobs.operators",
        "jobs.status_bar",
        "live.query",
        "scenes.link",
        "scenes.depth_preview",
        "scenes.unseen_areas",
        "scenes.enclosing",
        "scenes.viewports",
        "scenes.new_file",
        "scenes.matching",
        "scenes.operators",
        "scenes.missing",
        "scenes.comparison",
        "scenes.placement_operators",
        "scenes.panel",
        "shots.final_settings",
        "shots.properties",
        "shots.source_time",
        "cameras.pivots",
        "cameras.moves",
        "cameras.saved_moves",
        "cameras.operators",
        "cameras.asset_operators",
        "cameras.gizmos",
        "cameras.pivot_drawing",
        "cameras.panel",
        "shots.operators",
        "shots.camera_mismatch",
        "shots.markers",
        "shots.panel",
        "sequencer.edit_scenes",
        "takes.properties",
        "takes.thumbnails",
        "takes.take_jobs",
        "takes.operators",
        "takes.workspace",
        "takes.panel",
        "takes.sequencer_panel",
        "passes.properties",
        "passes.pass_jobs",
        "passes.operators",
        "farm.properties",
        "farm.operators",
        "shots.time_panel",
        "shots.settings_panels",
        "takes.menus",
        "sequencer.operators",
        "cameras.menus",
        "coverage.panel",
        "coverage.shot_path",
        "coverage.live_coverage",
        "coverage.drawing",
        "coverage.path_drawing",
        "views.panel",
        "views.live_view",
        "views.draft_panel",
        "views.live_draft",
        "footage.weights",
        "footage.properties",
        "footage.scene_jobs",
        "footage.operators",
        "footage.drops",
        "footage.lens",
        "footage.depth_offset",
        "footage.motion_masks",
        "footage.panel",
        "saving",
        "projects.operators",
        "projects.deletion",
        "projects.relinking",
        "passes.panel",
        "projects.panel",
        "help.manual",
        "help.links",
        "shortcuts.pie",
        "shortcuts.key_map",
    )
    if HAS_NUMPY
) or (import_module(".translations", __package__), import_module(".missing_numpy", __package__))

_registered = ExitStack()


def _describe(kind: type) -> None:
    """Let an operator's docstring be its tooltip, which Blender ends with a period of its own."""
    if issubclass(kind, bpy.types.Operator) and "bl_description" not in vars(kind):
        kind.bl_description = " ".join((kind.__doc__ or "").split()).rstrip(".")


def register() -> None:
    """Register every module; a failure is rolled back, so that the add-on can be enabled again."""
    global _registered
    with ExitStack() as registered:
        for module in MODULES:
            for kind in getattr(module, "CLASSES", ()):
                _describe(kind)
                bpy.utils.register_class(kind)
                registered.callback(bpy.utils.unregister_class, kind)
            for owner, name, value in getattr(module, "PROPERTIES", ()):
                setattr(owner, name, value)
                registered.callback(delattr, owner, name)
            for name, handler in getattr(module, "HANDLERS", ()):
                handlers = getattr(bpy.app.handlers, name)
                handlers.append(handler)
                registered.callback(handlers.remove, handler)
            for name, draw in getattr(module, "MENUS", ()):
                menu = getattr(bpy.types, name)
                menu.append(draw)
                registered.callback(menu.remove, draw)
            if hasattr(module, "register"):
                module.register()
            if hasattr(module, "unregister"):
                registered.callback(module.unregister)
        _registered = registered.pop_all()


def unregister() -> None:
    """Unregister everything in reverse order."""
    _registered.close()
