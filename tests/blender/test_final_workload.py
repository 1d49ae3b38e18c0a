"""What a final take costs, as it is shown before it is sent: windows, sizes, time and memory, and the shot's start."""

from __future__ import annotations

import json
import shutil

import bpy
import pytest

from blender_addon.coverage import shot_starts
from blender_addon.coverage.shot_path import shot_paths
from blender_addon.coverage.shot_starts import start_of_shot
from blender_addon.scenes.importing import import_scene
from blender_addon.shots.final_settings import (
    final_settings,
    restore_final_settings,
    start_text,
    workload_text,
)
from blender_addon.shots.final_size import estimate_texts
from blender_addon.shots.objects import shot_objects
from ex4d_core.cards import Card
from ex4d_core.wan_settings import wan_preset


@pytest.mark.parametrize(
    ("preset", "frames", "size", "text"),
    [
        ("ex4d-reference", 49, (512, 512), "49 frames at 512 x 512, 25 steps"),
        ("quality", 49, (1920, 1080), "49 frames at 843 x 474, enlarged to 1920 x 1080, 40 steps"),
        (
            "ex4d-reference",
            200,
            (1920, 1080),
            "200 frames at 683 x 384, enlarged to 1920 x 1080, 5 windows of 25 steps; each window continues the "
            "previous one",
        ),
    ],
)
def test_the_workload_of_a_final_take_is_shown_before_it_is_sent(preset, frames, size, text):
    assert workload_text(wan_preset(preset), frames, *size) == text


def test_hidden_frames_count_for_the_windows():
    standard = wan_preset("standard")
    one, two = (workload_text(standard, 89, 512, 512, 1.0, at_source) for at_source in (True, False))
    assert ", 2 windows" in one and ", 3 windows" in two and one.startswith("89 frames") and two.startswith("89 frames")
    assert workload_text(standard, 89, 512, 512) == one, "not known"


def test_every_second_frame_and_wide_pixels_show_in_the_workload():
    strided = wan_preset("standard", stride=2)
    assert workload_text(strided, 49, 512, 512) == "25 frames at 512 x 512, 25 steps"
    assert workload_text(wan_preset("quality"), 49, 1440, 1080, 4 / 3).startswith("49 frames at 843 x 474, enlarged")


def test_working_sizes_have_names_and_come_back_with_a_take():
    final = bpy.context.scene.ex4d_shot.final
    final.preset, final.size, final.above_model, final.keep_seen = "quality", "1280x720", True, True
    settings = final_settings(final)
    assert (settings.max_pixels, settings.generated_pixels, settings.keep_seen) == (921_600, 921_600, True)
    final.above_model = False
    assert final_settings(final).generated_pixels == 832 * 480
    final.preset = "draft"
    assert final_settings(final).max_pixels == 384 * 384, "a preset brings its own size"
    restore_final_settings(final, settings)
    assert final_settings(final) == settings and final.size == "1280x720"
    for pixels, name in ((0, "full"), (300_000, "832x480"), (3_000_000, "full"), (832 * 480, "preset")):
        restore_final_settings(final, wan_preset("quality", max_pixels=pixels))
        assert final.size == name


def test_the_published_settings_keep_no_seen_pixels_and_generate_at_any_size():
    final = bpy.context.scene.ex4d_shot.final
    final.keep_seen, final.preset, final.size = True, "ex4d-reference", "full"
    assert final_settings(final) == wan_preset("ex4d-reference", max_pixels=0)


def test_time_and_memory_on_the_backends_card_are_estimated_before_a_final_is_sent():
    devices = ["CPU, 2 cores (x86_64)", "NVIDIA H200, 140 GiB (cuda:0)"]
    card = Card.first_of(devices)
    standard, quality = wan_preset("standard"), wan_preset("quality", max_pixels=0, above_model="generate")
    text = estimate_texts(standard, 49, 512, 512, card)
    assert text == ("Estimate for H200: 15 s, 19.1 GB of its memory", "")
    assert estimate_texts(quality, 81, 1920, 1080, card)[0].startswith("Estimate for H200: 64 min, 58.6 GB")
    assert estimate_texts(standard, 49, 512, 512, card, 8) != text, "a lead-in takes longer"
    small = Card.of_device("NVIDIA GeForce RTX 4070, 12 GiB (cuda:0)")
    estimate, problem = estimate_texts(quality, 81, 1920, 1080, small)
    assert not estimate and problem.startswith("RTX 4070 has 12.9 GB of memory, and this needs ")
    unknown = Card.of_device("Somebody's card, 48 GiB (cuda:0)")
    assert "speed is not known" in estimate_texts(standard, 49, 512, 512, unknown)[0]
    assert Card.first_of(devices[:1]) is None


def test_what_a_lead_in_costs_is_said_and_what_is_seen_without_one():
    standard, without = wan_preset("standard"), wan_preset("standard", lead_in=0)
    assert start_text(standard, 49, True, None) == "" == start_text(wan_preset("ex4d-reference"), 49, False, 0.5)
    assert start_text(standard, 49, False, None) == "The lead-in from the source view adds 15% to the work"
    assert start_text(standard, 49, None, None).startswith("If the shot starts elsewhere")
    assert "of which 50% is visible" in start_text(without, 49, False, 0.5)
    assert start_text(without, 49, False, None).startswith("Without a lead-in")


def test_a_shot_that_starts_at_the_source_view_needs_no_lead_in(card_scene):
    import_scene(card_scene)
    bpy.ops.ex4d.add_camera(preset="30")
    scene = bpy.context.scene
    scene_object, camera = shot_objects(bpy.context)
    assert start_of_shot(scene, scene_object).at_source is None, "its path has not been read"
    shot_paths.of(scene).sample(bpy.context)
    assert start_of_shot(scene, scene_object).at_source is True
    camera.delta_location.x += 0.3
    shot_paths.of(scene).sample(bpy.context)
    assert start_of_shot(scene, scene_object).at_source is False


def test_the_start_is_known_again_when_the_scene_moves_in_time(card_scene, monkeypatch):
    """Another frame of the footage may have another source camera."""
    import_scene(card_scene)
    bpy.ops.ex4d.add_camera(preset="30")
    scene, (scene_object, _) = bpy.context.scene, shot_objects(bpy.context)
    shot_paths.of(scene).sample(bpy.context)
    shown = []
    see = lambda package, camera, shown_frame: shown.append(shown_frame) or True  # noqa: E731
    monkeypatch.setattr(shot_starts, "_is_at_source", see)
    first = shot_paths.of(scene).frame_start - scene_object.ex4d_scene.frame_start
    start_of_shot(scene, scene_object)
    start_of_shot(scene, scene_object)
    scene_object.ex4d_scene.frame_start -= 1
    start_of_shot(scene, scene_object)
    assert shown[-2:] == [first, first + 1] and len(shown) <= 2


def test_in_ex4ds_convention_every_shot_starts_from_the_source_frame(card_scene, tmp_path):
    folder = shutil.copytree(card_scene, tmp_path / "reference")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "convention": "reference"}))
    import_scene(folder)
    bpy.ops.ex4d.add_camera(preset="30")
    scene = bpy.context.scene
    scene_object, camera = shot_objects(bpy.context)
    camera.delta_location.x += 0.3
    shot_paths.of(scene).sample(bpy.context)
    assert shot_paths.of(scene).path.size == (manifest["width"], manifest["height"])
    assert start_of_shot(scene, scene_object).at_source is True
    scene.render.resolution_percentage = 50
    shot_paths.of(scene).sample(bpy.context)
    assert start_of_shot(scene, scene_object).at_source is False, "the backend scales no source frame for it"
