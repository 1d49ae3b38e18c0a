"""Final takes: a shot's settings go to the generator, the current estimate shows, settings are restored."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import bpy
import pytest

from blender_addon.connection.session import session
from blender_addon.footage.weights import PUBLISHED_ADAPTER, adapter_items, weights
from blender_addon.paths import from_blend
from blender_addon.scenes.importing import import_scene
from blender_addon.sequencer.edit_scenes import strip_in_file
from blender_addon.shots.final_settings import (
    final_settings,
    final_unavailable,
    lacking_precision,
    restore_final_settings,
    settings_of_takes,
    workload_text,
)
from blender_addon.shots.settings_panels import EX4D_PT_final_settings
from blender_addon.takes.panel import settings_text, take_name
from blender_addon.takes.requests import arithmetic_used, load_request
from blender_addon.takes.take_jobs import ESTIMATE_IMAGE
from ex4d_core.messages import Welcome, command_in
from ex4d_core.wan_settings import WAN_PRESETS, wan_preset

from .conftest import Backend, backend_environment, backend_process, free_address, tick_until
from .drawn import Drawn
from .taking import is_followed


@pytest.fixture(scope="module")
def generator(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with the engine wan and small models of random weights."""
    probe = subprocess.run([backend_python, "-c", "import diffsynth"], capture_output=True)
    if probe.returncode:
        pytest.skip("the backend's environment lacks the extra wan")
    models = tmp_path_factory.mktemp("models") / "models"
    write = f"import pathlib as p, bench.random_weights as m; m.write_models(p.Path({str(models)!r}))"
    subprocess.run([backend_python, "-c", write], check=True, env=backend_environment())
    (models / "adapters").mkdir()
    shutil.copy(models / "EX-4D" / "ex4d.ckpt", models / "adapters" / "RoboNVS_lora16.ckpt")
    data = tmp_path_factory.mktemp("generator")
    with backend_process(backend_python, free_address(), data, "--models", str(models)) as running:
        yield running


@pytest.fixture
def final_shot(generator: Backend, card_scene, tmp_path) -> bpy.types.PropertyGroup:
    """A saved file with the card's scene, connected to the generator, and a shot of three quick steps."""
    bpy.context.preferences.addons["blender_addon"].preferences.address = generator.address
    import_scene(card_scene)
    bpy.ops.ex4d.add_camera(preset="30")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    shot = bpy.context.scene.ex4d_shot
    shot.final.prompt, shot.final.negative_prompt = "a wide street at night", "static"
    shot.final.seed, shot.final.steps, shot.final.guidance = 41, 3, 4.5
    tick_until(bpy.ops.ex4d.send_final.poll, "the backend's engines")
    return shot


def test_a_final_is_made_with_the_shots_words_and_watched_while_it_forms(final_shot):
    images = set()

    def over() -> bool:
        if bpy.data.images.get(ESTIMATE_IMAGE) is not None:
            images.add(hash(bpy.data.images[ESTIMATE_IMAGE].packed_file.data))
        return not is_followed(bpy.context.scene.ex4d_takes[0])

    bpy.ops.ex4d.send_final()
    tick_until(over, "the final", seconds=180)
    take = bpy.context.scene.ex4d_takes[0]
    assert (take.state, take.reason, take.engine) == ("done", "", "wan")
    wan = load_request(from_blend(take.folder)).wan
    assert (wan.prompt, wan.negative_prompt) == ("a wide street at night", "static")
    assert (wan.seed, wan.steps, wan.guidance, wan.window) == (41, 3, 4.5, 49)
    assert images and tuple(bpy.data.images[ESTIMATE_IMAGE].size) == (6, 4)
    assert strip_in_file(take.key).type == "MOVIE"
    assert take_name(take).endswith(" v1 final")
    assert settings_text(take) == "Seed 41, 3 steps, guidance 4.5, fp8", "as the backend's request.json has it"

    # A preview of the same shot is its next version, and the final's settings come back.
    final_shot = bpy.context.scene.ex4d_shot
    final_shot.final.prompt, final_shot.final.seed, final_shot.final.preset = "something else", 7, "fast"
    bpy.ops.ex4d.send_take()
    assert (bpy.context.scene.ex4d_takes[1].version, bpy.context.scene.ex4d_takes[1].engine) == (2, "preview")
    bpy.ops.ex4d.restore_take(key=take.key)
    assert final_settings(bpy.context.scene.ex4d_shot.final) == wan
    tick_until(lambda: not is_followed(bpy.context.scene.ex4d_takes[1]), "the preview")


def test_words_and_numbers_are_kept_in_the_file_and_handed_to_new_shots(final_shot, tmp_path):
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    kept = final_settings(bpy.context.scene.ex4d_shot.final)
    assert (kept.prompt, kept.seed, kept.steps) == ("a wide street at night", 41, 3)
    bpy.ops.ex4d.add_shot()
    assert final_settings(bpy.context.scene.ex4d_shot.final) == kept
    bpy.context.scene.ex4d_shot.final.prompt = "rain"
    assert bpy.context.scene.ex4d_shots[0].final.prompt == "a wide street at night"


@pytest.mark.parametrize("preset", WAN_PRESETS)
def test_a_preset_sets_what_it_is_known_for(preset):
    final = bpy.context.scene.ex4d_shot.final
    final.preset = preset
    assert final_settings(final) == wan_preset(preset)
    final.preset = "ex4d-reference"
    restore_final_settings(final, wan_preset(preset, steps=11, guidance=2.5, seed=3))
    assert final_settings(final) == wan_preset(preset, steps=11, guidance=2.5, seed=3)


def test_an_earlier_versions_take_is_restored_as_the_reference():
    """Its frame 0 and its windows were EX-4D's own; only its arithmetic was faster."""
    final = bpy.context.scene.ex4d_shot.final
    restore_final_settings(final, wan_preset("ex4d-reference", precision="fp8", seed=3))
    assert final_settings(final) == wan_preset("ex4d-reference", seed=3)


def test_a_take_whose_preset_has_changed_since_says_what_a_new_one_differs_in():
    final = bpy.context.scene.ex4d_shot.final
    assert restore_final_settings(final, wan_preset("quality", seed=2**40)) == "", "nothing but a seed beyond Blender's"
    note = restore_final_settings(final, wan_preset("ex4d-reference", precision="fp8", shift=4.0))
    assert note.startswith("The preset EX-4D has changed since this take") and note.endswith("in shift, precision")


def test_a_file_from_before_lead_ins_gets_that_of_its_preset(tmp_path):
    """Without one, *Quality* would have that of *Standard*."""
    final = bpy.context.scene.ex4d_shot.final
    final.preset = "quality"
    final.property_unset("lead_in")
    assert final.lead_in == "8"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "older.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "older.blend"))
    final = bpy.context.scene.ex4d_shot.final
    assert final_settings(final) == wan_preset("quality")
    final.lead_in = "0"
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "older.blend"))
    assert bpy.context.scene.ex4d_shot.final.lead_in == "0", "chosen"


def test_the_backends_adapters_can_be_chosen(final_shot):
    final = final_shot.final
    assert (final.adapter_choice, final_settings(final).adapter) == (PUBLISHED_ADAPTER, "")
    tick_until(lambda: weights.adapters, "the backend's adapters")
    assert [name for name, _, _ in adapter_items(final, None)] == [PUBLISHED_ADAPTER, "RoboNVS_lora16"]
    final.adapter_choice = "RoboNVS_lora16"
    assert final_settings(final) == replace(final_settings(final), adapter="RoboNVS_lora16")
    settings = final_settings(final)
    final.adapter_choice = PUBLISHED_ADAPTER
    assert final_settings(final).adapter == ""
    restore_final_settings(final, settings)
    assert final_settings(final) == settings
    weights.reset()
    assert final.adapter_choice == "RoboNVS_lora16", "also while no backend has it"


def test_numbers_of_presets_in_blend_files_stay_as_they_were():
    items = type(bpy.context.scene.ex4d_shot.final).bl_rna.properties["preset"].enum_items
    assert [items[name].value for name in ("ex4d-reference", "quality", "fast", "draft")] == [0, 1, 2, 3]
    assert bpy.context.scene.ex4d_shot.final.preset == "standard"


def test_another_seed_is_one_press(final_shot):
    assert bpy.ops.ex4d.new_seed() == {"FINISHED"}
    assert final_shot.final.seed != 41


def test_words_are_changed_in_a_window_of_their_own(final_shot):
    assert bpy.ops.ex4d.edit_words(words="negative_prompt", text="static, blurred") == {"FINISHED"}
    assert (final_shot.final.prompt, final_shot.final.negative_prompt) == ("a wide street at night", "static, blurred")


def test_final_is_disabled_with_the_reason(connected, card_scene):
    import_scene(card_scene)
    bpy.ops.ex4d.add_camera(preset="30")
    assert bpy.ops.ex4d.send_take.poll() and not bpy.ops.ex4d.send_final.poll()
    assert not bpy.ops.ex4d.watch_take.poll()
    with pytest.raises(RuntimeError, match="No backend is connected"):
        bpy.ops.ex4d.send_final()
    tick_until(lambda: session().connected and session().client.server.engines, "the engines")
    with pytest.raises(RuntimeError, match="no final takes: the engine wan needs"):
        bpy.ops.ex4d.send_final()


def introduction(engines: dict[str, str], lacking: dict[str, str]) -> Welcome:
    return Welcome("ex4d", "0.1.0", ["a GPU"], engines, {}, lacking=lacking)


def test_the_command_that_brings_missing_weights_can_be_copied():
    fetch = "ex4d models fetch vae ex4d --models '/data/my models'"
    missing = introduction(
        {"preview": ""}, {"wan": f"weights are missing in /data: vae, ex4d. Fetch them with: {fetch}"}
    )
    reason = final_unavailable(missing, "draft", research=False)
    assert "weights are missing in /data" in reason
    assert command_in(reason) == fetch
    assert command_in("frame 0 of the shot shows nothing") == ""
    assert bpy.ops.ex4d.copy_text(text=fetch) == {"FINISHED"}


def test_a_preset_that_is_unavailable_is_not_sent():
    server = introduction({"wan": "Apache-2.0"}, {"wan fast": "the preset fast needs more: no LoRA"})
    assert final_unavailable(server, "draft", research=False) == ""
    assert "the preset fast needs more: no LoRA" in final_unavailable(server, "fast", research=False)


def test_what_a_backend_computes_in_instead_of_fp8_is_shown_for_presets_that_ask_for_it():
    lacking = {"wan fp8": "cuda:0 computes in bf16", "wan fp8 attention": "cuda:0 computes in bf16 all the more"}
    server = introduction({"wan": "Apache-2.0"}, lacking)
    assert [lacking_precision(server, preset) for preset in ("standard", "fast", "ex4d-reference")] == [
        "cuda:0 computes in bf16",
        "cuda:0 computes in bf16 all the more",
        "",
    ]
    assert lacking_precision(introduction({"wan": "Apache-2.0"}, {}), "fast") == ""
    assert final_unavailable(server, "fast", research=False) == "", "it is slower, not impossible"


def test_the_panel_shows_what_a_backend_computes_in_instead(connected, card_scene, monkeypatch):
    tick_until(lambda: session().connected and session().client.server is not None, "the backend")
    lacking = {"wan fp8": "cuda:0 does not multiply in fp8"}
    monkeypatch.setattr(session().client, "server", introduction({"wan": "Apache-2.0"}, lacking))
    system, region = SimpleNamespace(ui_scale=1.0), SimpleNamespace(width=300)
    scene, preferences = bpy.context.scene, SimpleNamespace(system=system)
    context = SimpleNamespace(scene=scene, view_layer=bpy.context.view_layer, preferences=preferences, region=region)
    for preset, shown in (("standard", True), ("ex4d-reference", False)):
        bpy.context.scene.ex4d_shot.final.preset = preset
        drawn = Drawn()
        EX4D_PT_final_settings.draw(SimpleNamespace(layout=drawn), context)
        assert (lacking["wan fp8"] in " ".join(drawn.texts)) == shown


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ('{"made_by": {"precision": "bf16, weights stored in fp8"}}', "bf16, weights stored in fp8"),
        ('{"made_by": {"precision": "fp8\\u202e"}}', "fp8\ufffd"),
        ('{"made_by": []}', ""),
        ("{}", ""),
        ("not JSON", ""),
    ],
)
def test_what_a_take_was_computed_in_is_read_from_its_request(tmp_path, text, used):
    (tmp_path / "request.json").write_text(text)
    assert arithmetic_used(tmp_path / "request.json") == used
    assert arithmetic_used(tmp_path / "missing.json") == ""


def test_a_backend_that_is_starting_is_not_reported_as_unable():
    assert "still checking" in final_unavailable(introduction({}, {}), "draft", research=False)


def test_several_takes_sent_at_once_differ_in_their_seeds(final_shot):
    final_shot.final.takes, final_shot.final.seed, final_shot.final.steps = 3, 41, 1
    bpy.ops.ex4d.send_final()
    takes = bpy.context.scene.ex4d_takes
    requests = [load_request(from_blend(take.folder)) for take in takes]
    assert [request.wan.seed for request in requests] == [41, 42, 43]
    assert [take.version for take in takes] == [1, 2, 3]
    assert [settings_text(take) for take in takes] == [f"Seed {seed}, 1 steps, guidance 4.5" for seed in (41, 42, 43)]
    tick_until(lambda: all(take.state == "done" for take in takes), "the final takes", seconds=180)
    movies = {(from_blend(take.folder) / "frame_00000.png").read_bytes() for take in takes}
    assert len(movies) == 3


def test_seeds_of_several_takes_stay_within_blenders_integers():
    final = bpy.context.scene.ex4d_shot.final
    final.seed, final.takes = 2**31 - 1, 2
    assert [settings.seed for settings in settings_of_takes(final)] == [2**31 - 1, 0]


def test_how_images_are_enlarged_is_said_by_what_the_backend_has():
    quality = wan_preset("quality")
    having, lacking = (introduction({"wan": ""}, given) for given in ({}, {"wan upscaler": "there is none"}))
    assert "1920 x 1080 by the backend's upscaler, 40" in workload_text(quality, 49, 1920, 1080, server=having)
    assert "1920 x 1080 by interpolation, 40" in workload_text(quality, 49, 1920, 1080, server=lacking)


def test_the_lead_in_and_frame_step_of_a_take_are_restored():
    final = bpy.context.scene.ex4d_shot.final
    assert final_settings(final) == wan_preset("standard"), "what a new shot has"
    final.lead_in, final.stride = "16", 2
    settings = final_settings(final)
    assert (settings.lead_in, settings.stride) == (16, 2)
    final.preset = "ex4d-reference"
    assert final_settings(final).lead_in == 0 == final_settings(final).stride - 1
    restore_final_settings(final, settings)
    assert final_settings(final) == settings


def test_a_generator_for_research_only_needs_the_preference_to_say_so():
    server = introduction({"preview": "", "wan": "somebody's weights: for research only"}, {})
    assert "somebody's weights" in final_unavailable(server, "draft", research=False)
    assert final_unavailable(server, "draft", research=True) == ""
    assert final_unavailable(introduction({"wan": "Apache-2.0"}, {}), "draft", research=False) == ""
