"""Restores a take's settings into its shot, and its camera path as a new camera."""

from __future__ import annotations

import bpy

from ..cameras.keyframes import animate_with_few_keys, new_camera
from ..cameras.optics import render_size
from ..paths import from_blend
from ..scenes.link import collection_for
from ..shots.final_settings import FINAL_ENGINE, restore_final_settings, restore_words
from ..shots.memory import memory_from
from ..shots.occlusion import chosen_from
from ..shots.properties import add_shot, find_shot
from ..shots.source_time import set_source_frames
from .properties import EX4D_Take, version_name
from .requests import load_request, object_of


def restore_take(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> str:
    """Set the shot of a take to what it was for the take, and make it the active one.

    Returns:
        A note for the artist, or "".

    Raises:
        RequestError: the take's request cannot be read, or its scene is not in the file.
    """
    request = load_request(from_blend(entry.folder))
    scene_object = object_of(request)
    shot = find_shot(blender_scene, entry.shot)
    if shot is None:
        shot = add_shot(blender_scene)
        shot.key = entry.shot
    name = version_name(entry.label, entry.version)
    camera = new_camera(name, scene_object, collection_for(scene_object))
    animate_with_few_keys(camera, request.camera, entry.frame_start)
    shot.camera, shot.scene_object = camera, scene_object
    shot.label, shot.holes = request.label or entry.label, request.preview.holes
    shot.hole_color = [value / 255 for value in request.preview.hole_color]
    shot.occlusion = chosen_from(request.render.occlusion, request.engine, request.render.convention)
    shot.memory = memory_from(request.render.remember)
    if request.render.convention != "reference":  # whose one sample says nothing about the shot
        shot.samples = request.render.samples
    notes = []
    if request.engine == FINAL_ENGINE:
        notes.append(restore_final_settings(shot.final, request.wan))
    else:
        restore_words(shot.final, request.wan)
    shot.use_range = True
    shot.frame_start, shot.frame_end = entry.frame_start, entry.frame_start + entry.frames - 1
    set_source_frames(shot, scene_object, entry.frame_start, request.source_frames)
    for index, one in enumerate(blender_scene.ex4d_shots):
        if one == shot:
            blender_scene.ex4d_shot_index = index
    blender_scene.camera = camera
    taken, now = (request.camera.width, request.camera.height), render_size(blender_scene.render)
    if taken != now:
        sizes = f"the take is {taken[0]}x{taken[1]}, the scene renders {now[0]}x{now[1]}"
        notes.append(f"{sizes}; set the Resolution for the same view")
    return "; ".join(filter(None, notes))
