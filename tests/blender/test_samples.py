"""Samples are a setting of the shot for its takes; views and coverage have one, and older backends still take them."""

from __future__ import annotations

import bpy

from blender_addon.paths import from_blend
from blender_addon.shots.properties import add_shot
from blender_addon.takes.requests import load_request
from blender_addon.views.live_view import live_view

from .taking import send


def test_takes_are_sent_with_the_shots_samples_and_views_with_one(shot):
    scene = bpy.context.scene
    assert load_request(from_blend(send().folder)).render.samples == scene.ex4d_shot.samples == 3
    scene.ex4d_shot.samples = 4
    assert load_request(from_blend(send().folder)).render.samples == 4
    scene.frame_set(11)
    _, view = live_view.current_request(bpy.context)
    assert view.render.samples == 1 and "samples" not in view.to_wire()["render"]


def test_using_a_takes_settings_brings_its_samples_back(shot):
    scene = bpy.context.scene
    scene.ex4d_shot.samples = 1
    send()
    scene.ex4d_shot.samples = 3
    assert bpy.ops.ex4d.restore_take() == {"FINISHED"}
    assert scene.ex4d_shot.samples == 1
    assert add_shot(scene).samples == 1, "a new shot copies the settings"
