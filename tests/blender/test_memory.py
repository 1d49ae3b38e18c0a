"""The clip's memory is a setting of the shot: takes, coverage and views obey it, and its default is the engine's."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.coverage.live_coverage import live_coverage
from blender_addon.paths import from_blend
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.remembered_areas import shows_memory, spread
from blender_addon.shots.memory import AUTOMATIC, memory_from, remember_of, remember_on_wire
from blender_addon.shots.properties import add_shot
from blender_addon.takes.requests import load_request, render_settings
from blender_addon.views.live_view import live_view
from ex4d_core.scene import Scene
from ex4d_core.trajectories import Trajectory

from .conftest import tick_until
from .taking import send


@pytest.mark.parametrize("engine, expected", [("preview", True), ("wan", False)])
def test_the_engine_decides_unless_the_artist_does(engine, expected):
    assert remember_of(AUTOMATIC, engine, "centered") == expected
    assert remember_of("on", engine, "centered") and not remember_of("off", engine, "centered")
    assert not remember_of("on", engine, "reference")
    # What the engine does by itself is not sent: older backends do not know the field.
    assert remember_on_wire(AUTOMATIC, engine, "centered") is None
    assert remember_on_wire("off" if expected else "on", engine, "centered") is not expected


@pytest.mark.parametrize("chosen, sent", [(AUTOMATIC, None), ("off", False)])
def test_takes_and_views_are_sent_with_the_shots_memory(shot, chosen, sent):
    bpy.context.scene.ex4d_shot.memory = chosen
    assert load_request(from_blend(send().folder)).render.remember is sent
    bpy.context.scene.frame_set(11)
    _, view = live_view.current_request(bpy.context)
    assert view.render.remember is sent


def test_using_a_takes_settings_brings_its_memory_back(shot):
    scene = bpy.context.scene
    scene.ex4d_shot.memory = "off"
    send()
    scene.ex4d_shot.memory = AUTOMATIC
    assert bpy.ops.ex4d.restore_take() == {"FINISHED"}
    assert scene.ex4d_shot.memory == "off"
    assert add_shot(scene).memory == "off", "a new shot copies the settings"
    assert [memory_from(value) for value in (None, True, False)] == [AUTOMATIC, "on", "off"]


def test_a_final_is_sent_with_the_memory_that_the_artist_chose(card_scene):
    package = Scene.open(card_scene)
    assert render_settings(package, engine="wan").remember is None
    assert render_settings(package, engine="wan", memory="on").remember is True


def test_viewports_show_the_memory_that_previews_have(shot):
    scene = bpy.context.scene
    assert shows_memory(scene, shot)
    scene.ex4d_shot.memory = "off"
    assert not shows_memory(scene, shot)
    assert spread(9) == [0, 3, 5, 8] and spread(2) == [0, 1]


def test_coverage_tells_what_other_frames_saw(connected, moving_scene):
    """The camera passes a card: what it hides from one frame another one sees."""
    imported = import_scene(moving_scene, ImportSettings(frame_start=11))
    camera_from_preset(imported, Trajectory("truck", 0.3), name="aside")
    scene = bpy.context.scene
    scene.ex4d_shot.camera = bpy.data.objects["aside"]
    scene.ex4d_coverage.live = True
    coverage = live_coverage.of(scene)
    tick_until(lambda: coverage.shown is not None and coverage.shown.fresh.all(), "the coverage")
    shown = coverage.shown
    assert shown.remembered.max() > 0.01 and (shown.seen + shown.remembered <= 1).all()

    scene.ex4d_shot.memory = "off"
    tick_until(lambda: not coverage.shown.remembered.any(), "coverage without memory")
    np.testing.assert_allclose(coverage.shown.seen, shown.seen, atol=1e-6)
