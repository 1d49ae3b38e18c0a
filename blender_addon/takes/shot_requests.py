"""`request_of_shot`: the request for a take of the active shot, as its panels have it."""

from __future__ import annotations

from dataclasses import replace

import bpy

from ex4d_core.output_settings import OutputSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import EngineName, PreviewSettings, ShotRequest

from ..shots.objects import shot_cuts, shot_objects
from ..shots.properties import active_shot
from ..shots.source_time import source_frames_of
from .requests import build_request, file_stem, shot_range


def request_of_shot(context: bpy.types.Context, engine: EngineName) -> tuple[Scene, ShotRequest, int]:
    """The opened scene package of the active shot, the request for its take, and the take's first Blender frame.

    Settings of the engine wan are not in it; see `..shots.final_settings`.

    Raises:
        SceneError, CameraError, RequestError: see `build_request`.
    """
    shot = active_shot(context.scene)
    scene_object, camera = shot_objects(context)
    frame_start, frame_end = shot_range(context.scene, scene_object)
    color = tuple(round(255 * value) for value in shot.hole_color)
    scene, request = build_request(
        scene_object,
        camera,
        frame_start,
        frame_end,
        source_frames=source_frames_of(shot, scene_object, frame_start, frame_end),
        preview=PreviewSettings(shot.holes, color),
        engine=engine,
        label=shot.label,
        occlusion=shot.occlusion,
        memory=shot.memory,
        samples=shot.samples,
        cuts=shot_cuts(context, frame_start, frame_end),
    )
    if shot.use_exr and scene.manifest.is_deep:
        space = shot.output_space or scene.manifest.color_space
        output = OutputSettings(format="exr", output_space=space)
        request = replace(request, output=output.named(file_stem(shot.label)))
    return scene, request, frame_start
