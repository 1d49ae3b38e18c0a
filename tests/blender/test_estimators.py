"""The panel's estimators come from the backend, and missing weights are fetched there by one button."""

from __future__ import annotations

from dataclasses import replace

import bpy
import pytest

from blender_addon.footage.field_names import in_field_names
from blender_addon.footage.weights import estimator_items, weights, why_forbidden

from .conftest import backend_process, free_address, tick_until

ESTIMATOR = "depth-anything-v2"


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons["blender_addon"].preferences


@pytest.fixture
def asked(connected):
    tick_until(lambda: bool(weights.estimators), "the backend's estimators")


@pytest.fixture(scope="module")
def backend(backend_python, tmp_path_factory):
    """A backend without weights, whose hub does not answer."""
    folder = tmp_path_factory.mktemp("backend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EX4D_MODELS", str(folder / "models"))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "127.0.0.1")
        with backend_process(backend_python, free_address(), folder / "data") as running:
            yield running


def test_estimators_are_a_list_from_the_backend(asked):
    settings = bpy.context.scene.ex4d_footage
    names = [name for name, _, _ in estimator_items(settings, None)]
    assert names[0] == "auto" and {ESTIMATOR, "video-depth-anything"} <= set(names)
    settings.estimator_choice = ESTIMATOR
    assert settings.estimator == ESTIMATOR == settings.estimator_choice
    settings.estimator = "of another backend"  # as in a file of before
    assert settings.estimator_choice == "of another backend"


def test_estimate_is_the_default_for_footage_without_depth_where_there_are_estimators(asked, tmp_path):
    settings = bpy.context.scene.ex4d_footage
    settings.footage = str(tmp_path / "walk.mp4")
    assert settings.depth_from == "ESTIMATOR"
    (tmp_path / "run_depth.npz").write_bytes(b"")
    settings.footage = str(tmp_path / "run.mp4")
    assert settings.depth_from == "FILES", "depth beside the footage goes first"


def test_missing_weights_are_known_before_the_press_and_a_failed_download_says_why(asked):
    part = weights.find("auto")
    assert part.state == "missing" and part.commercial and part.bytes > 10**7 and part.licence
    assert weights.allowed, "on this computer"
    assert bpy.ops.ex4d.fetch_weights(part=ESTIMATOR) == {"FINISHED"}
    tick_until(lambda: weights.find(ESTIMATOR).state == "fetching", "the start")
    tick_until(lambda: weights.find(ESTIMATOR).state == "failed", "the end")
    assert "could not be downloaded" in weights.find(ESTIMATOR).reason


def test_what_the_license_forbids_is_known_before_the_press(asked):
    pro = weights.find("depth-pro")
    assert "research only" in why_forbidden(pro) and pro.licence in why_forbidden(pro)
    preferences().licence = "RESEARCH"
    assert why_forbidden(pro) == "" and why_forbidden(weights.find(ESTIMATOR)) == ""
    assert why_forbidden(replace(pro, use="none")) != "", "a machine for commercial work"


def test_automatic_passes_over_what_the_backend_must_not_or_cannot_run(asked):
    best, good = weights.find("depth-pro"), weights.find(ESTIMATOR)
    weights.estimators = [replace(best, state="here"), replace(good, state="here")]
    assert weights.find("auto").name == ESTIMATOR
    preferences().licence = "RESEARCH"
    assert weights.find("auto").name == "depth-pro"
    weights.estimators[0] = replace(best, state="here", lacks="Depth Pro needs transformers, install with: pip")
    assert weights.find("auto").name == ESTIMATOR
    (text,) = (text for name, _, text in estimator_items(bpy.context.scene.ex4d_footage, None) if name == "depth-pro")
    assert "needs transformers" in text


def test_errors_speak_of_blenders_fields_and_commands_stay_as_they_are():
    text = "depth of PNG files needs --depth-scale; or give --depth. Fetch it with: ex4d models fetch x --depth y"
    assert in_field_names(text) == (
        "depth of PNG files needs Depth Scale; or give Depth Files. Fetch it with: ex4d models fetch x --depth y"
    )
