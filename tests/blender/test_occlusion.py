"""The occlusion model is a setting of the shot; takes, coverage and views obey it, and its default is the engine's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bpy
import pytest

from blender_addon.coverage.live_coverage import live_coverage
from blender_addon.paths import from_blend
from blender_addon.scenes.importing import import_scene
from blender_addon.shots.occlusion import AUTOMATIC, chosen_from, meaning_of, occlusion_of
from blender_addon.shots.properties import add_shot
from blender_addon.takes.requests import load_request, render_settings
from blender_addon.views.live_view import live_view
from ex4d_core.errors import RequestError
from ex4d_core.render_settings import OCCLUSION_MODELS
from ex4d_core.scene import Scene

from .conftest import tick_until
from .taking import send


def test_every_model_of_the_wire_can_be_chosen_and_is_explained():
    items = bpy.context.scene.ex4d_shot.bl_rna.properties["occlusion"].enum_items
    assert set(items.keys()) == {AUTOMATIC, *OCCLUSION_MODELS}
    assert len({meaning_of(name, "centered") for name in set(items.keys())}) == len(items)
    assert meaning_of(AUTOMATIC, "reference") != meaning_of(AUTOMATIC, "centered")


@pytest.mark.parametrize("engine, expected", [("preview", "thickness"), ("wan", "watertight")])
def test_the_engine_decides_unless_the_artist_does(engine, expected):
    assert occlusion_of(AUTOMATIC, engine, "centered") == expected
    assert occlusion_of("open", engine, "centered") == "open"
    assert occlusion_of(AUTOMATIC, engine, "reference") == "watertight"
    assert chosen_from(expected, engine, "centered") == AUTOMATIC
    assert chosen_from("open", engine, "centered") == "open"


@pytest.mark.parametrize("chosen, sent", [(AUTOMATIC, "thickness"), ("watertight", "watertight"), ("open", "open")])
def test_takes_and_views_are_sent_with_the_shots_model(shot, chosen, sent):
    bpy.context.scene.ex4d_shot.occlusion = chosen
    assert load_request(from_blend(send().folder)).render.occlusion == sent
    bpy.context.scene.frame_set(11)
    _, view = live_view.current_request(bpy.context)
    assert view.render.occlusion == sent


def test_coverage_is_asked_for_again_with_another_model(connected, shot):
    bpy.context.scene.ex4d_shot.occlusion = "watertight"
    bpy.context.scene.ex4d_coverage.live = True
    coverage = live_coverage.of(bpy.context.scene)
    tick_until(lambda: coverage.shown is not None and coverage.shown.fresh.all(), "the coverage")
    solid = coverage.shown.seen.mean()

    bpy.context.scene.ex4d_shot.occlusion = AUTOMATIC
    tick_until(lambda: coverage.shown.seen.mean() > solid + 0.01, "more to be seen behind the card")


def test_using_a_takes_settings_brings_its_model_back(shot):
    scene = bpy.context.scene
    scene.ex4d_shot.occlusion = "open"
    send()
    scene.ex4d_shot.occlusion = AUTOMATIC
    assert bpy.ops.ex4d.restore_take() == {"FINISHED"}
    assert scene.ex4d_shot.occlusion == "open"
    assert add_shot(scene).occlusion == "open", "a new shot copies the settings"


def test_a_model_that_the_scene_does_not_have_is_refused(card_scene, tmp_path):
    folder = Path(shutil.copytree(card_scene, tmp_path / "reference"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "convention": "reference"}))
    package = Scene.open(folder)
    assert render_settings(package).occlusion == "watertight"
    with pytest.raises(RequestError, match="thickness"):
        render_settings(package, "thickness")
    assert import_scene(folder).ex4d_scene.convention == "reference"
