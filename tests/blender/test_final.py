"""Finals: words and numbers of a shot go to the generator, the picture that forms is seen, settings come back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import bpy
import pytest

from blender_addon.connection.session import session
from blender_addon.paths import from_blend
from blender_addon.scenes.importing import import_scene
from blender_addon.sequencer.strips import find_strip
from blender_addon.shots.final import final_settings, restore_final, why_no_final
from blender_addon.takes.follow import is_followed
from blender_addon.takes.panel import take_name
from blender_addon.takes.shots import load_request
from blender_addon.views.estimates import estimate_image
from ex4d_core.shot import WAN_PRESETS, wan_preset

from .conftest import Backend, backend_environment, backend_process, free_address, tick_until


@pytest.fixture(scope="module")
def generator(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with the engine wan and small models of random weights."""
    probe = subprocess.run([backend_python, "-c", "import diffsynth"], capture_output=True)
    if probe.returncode:
        pytest.skip("the backend's environment lacks the extra wan")
    models = tmp_path_factory.mktemp("models") / "models"
    write = f"import pathlib as p, backend.generate.wan.made_up as m; m.write_models(p.Path({str(models)!r}))"
    subprocess.run([backend_python, "-c", write], check=True, env=backend_environment())
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
    pictures = set()

    def over() -> bool:
        if estimate_image() is not None:
            pictures.add(hash(estimate_image().packed_file.data))
        return not is_followed(bpy.context.scene.ex4d_takes[0])

    bpy.ops.ex4d.send_final()
    tick_until(over, "the final", seconds=180)
    take = bpy.context.scene.ex4d_takes[0]
    assert (take.state, take.reason, take.engine) == ("done", "", "wan")
    wan = load_request(from_blend(take.folder)).wan
    assert (wan.prompt, wan.negative_prompt) == ("a wide street at night", "static")
    assert (wan.seed, wan.steps, wan.guidance, wan.window) == (41, 3, 4.5, 49)
    assert pictures and tuple(estimate_image().size) == (6, 4)
    assert find_strip(bpy.context.scene, take.key).type == "MOVIE"
    assert take_name(take).endswith(" v1 final")

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
    restore_final(final, wan_preset(preset, steps=11, guidance=2.5, seed=3))
    assert final_settings(final) == wan_preset(preset, steps=11, guidance=2.5, seed=3)


def test_another_seed_is_one_press(final_shot):
    assert bpy.ops.ex4d.new_seed() == {"FINISHED"}
    assert final_shot.final.seed != 41


def test_final_is_grey_with_the_reason(connected, card_scene):
    import_scene(card_scene)
    bpy.ops.ex4d.add_camera(preset="30")
    assert bpy.ops.ex4d.send_take.poll() and not bpy.ops.ex4d.send_final.poll()
    assert not bpy.ops.ex4d.watch_take.poll()
    with pytest.raises(RuntimeError, match="No backend is connected"):
        bpy.ops.ex4d.send_final()
    tick_until(lambda: session().connected and session().client.server.engines, "the engines")
    with pytest.raises(RuntimeError, match=r"cannot make finals.*ex4d doctor.*Preview works"):
        bpy.ops.ex4d.send_final()


def test_a_generator_for_research_only_needs_the_preference_to_say_so():
    engines = {"preview": "", "wan": "somebody's weights: for research only"}
    assert "results are for any work" in why_no_final(engines, research=False)
    assert why_no_final(engines, research=True) == ""
    assert why_no_final({"wan": "Apache-2.0"}, research=False) == ""
