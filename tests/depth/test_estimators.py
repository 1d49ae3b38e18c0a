"""Estimators as a user meets them: chosen, refused, and run on ordinary and on awkward footage."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import (
    DEPTH_MODELS,
    DepthError,
    EstimatorSettings,
    UnknownModelError,
    create_estimator,
    intrinsics_from,
    verdicts,
)
from ex4d.depth.depth_models import depth_model
from ex4d.depth.estimation import ClipModel, ModelEstimator, resized_frame, size_in_patches
from ex4d.devices import DeviceError
from ex4d.machine import MachineSettings
from ex4d.media import probe, read_frames
from ex4d.pipeline.scene_building import build_scene
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d_core.licences import LicenceError
from tests.depth.conftest import moving_image


class BrightIsNear(ClipModel):
    """A stand-in for a network: disparity is brightness, at a bounded size."""

    model = depth_model("video-depth-anything")

    def working_size(self, width, height):
        return size_in_patches(width, height, 56, 14, 16 / 9)

    def predict(self, frames, step):
        for frame in frames:
            step("predict", 1)
            yield frame.mean(dim=0).numpy()


def depth_of(footage, **options) -> np.ndarray:
    return np.stack(list(ModelEstimator(BrightIsNear(), **options).estimate(footage)))


def depth_anything(models: Path) -> EstimatorSettings:
    return EstimatorSettings("depth-anything-v2", MachineSettings(models), device="cpu")


@pytest.mark.parametrize("name", [model.name for model in DEPTH_MODELS])
def test_research_models_are_refused_unless_research_or_their_licence_is_said(name, tmp_path):
    """Without weights here, what is allowed gets as far as looking for them."""
    commercial = name not in ("depthcrafter", "depth-pro")
    for machine, licence, allowed in (
        (MachineSettings(tmp_path), None, commercial),
        (MachineSettings(tmp_path), "commercial", commercial),
        (MachineSettings(tmp_path), "research", True),
        (MachineSettings(tmp_path, licence="research"), None, True),
        (MachineSettings(tmp_path, licence="commercial"), "research", commercial),
        (MachineSettings(tmp_path, licence="commercial", accepted=(name,)), None, True),
    ):
        with pytest.raises(WeightsMissingError if allowed else LicenceError) as raised:
            create_estimator(EstimatorSettings(name, machine, licence, device="cpu"))
        assert allowed or f"--accept-licence {name}" in str(raised.value)


def test_the_command_refuses_what_a_licence_does_not_allow(write_clip, tmp_path, capsys):
    from ex4d.cli.main import main

    arguments = ["reconstruct", str(write_clip(1).path), "--models", str(tmp_path), "-o", str(tmp_path / "scene")]
    assert main([*arguments, "--estimator", "depthcrafter"]) == 1
    told = capsys.readouterr().err
    assert "depthcrafter may not be used for commercial work" in told and "--licence research" in told
    assert not (tmp_path / "scene").exists()


def test_no_option_takes_a_machines_commercial_back_but_a_licence_of_ones_own(
    write_clip, tmp_path, capsys, monkeypatch
):
    from ex4d.cli.main import main

    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    arguments = ["reconstruct", str(write_clip(1).path), "--models", str(tmp_path), "-o", str(tmp_path / "scene")]
    arguments += ["--estimator", "depthcrafter", "--licence", "research"]
    assert main(arguments) == 1
    assert "depthcrafter may not be used for commercial work" in capsys.readouterr().err
    assert main([*arguments, "--accept-licence", "depthcrafter"]) == 1
    assert "ex4d models fetch depthcrafter" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownModelError, match=r"depth estimator 'midas': expected auto, or one of depthcrafter"):
        create_estimator(EstimatorSettings("midas", MachineSettings(tmp_path)))


def test_missing_weights_say_what_to_download(tmp_path):
    pytest.importorskip("transformers")
    told = r"-hf/model.safetensors are missing .*ex4d models fetch depth-anything-v2 --models"
    with pytest.raises(WeightsMissingError, match=told):
        create_estimator(EstimatorSettings("depth-anything-v2", MachineSettings(tmp_path)))
    with pytest.raises(WeightsMissingError, match=r"fetch depth-anything-v2 --models .* or give --depth"):
        create_estimator(EstimatorSettings("auto", MachineSettings(tmp_path)))


def test_a_partial_download_names_the_missing_files(toy_models, tmp_path):
    folder = tmp_path / "depth-anything" / "Depth-Anything-V2-Small-hf"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(next(toy_models.rglob("Depth-Anything-V2*/config.json")).read_bytes())
    with pytest.raises(WeightsMissingError, match=r"-hf/model.safetensors is missing"):
        create_estimator(EstimatorSettings("depth-anything-v2", MachineSettings(tmp_path)))
    whole = next(toy_models.rglob("Depth-Anything-V2*/model.safetensors")).read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="fetch it again"):
        create_estimator(EstimatorSettings("depth-anything-v2", MachineSettings(tmp_path)))


def test_auto_takes_what_is_installed_licensed_and_fits(toy_models):
    settings = EstimatorSettings("auto", MachineSettings(toy_models), device="cpu")
    assert create_estimator(settings).name == "depth-anything-v2"
    told = {verdict.model.name: verdict.reason for verdict in verdicts(settings)}
    assert told["depthcrafter"] == "for research only"
    assert "files are not in" in told["video-depth-anything"]
    research = EstimatorSettings("auto", MachineSettings(toy_models), licence="research", device="cpu")
    told = {verdict.model.name: verdict.reason for verdict in verdicts(research)}
    assert "needs a GPU" in told["depthcrafter"] and not told["depth-anything-v2"]


@pytest.mark.parametrize(("free", "choice"), [(80, "depthcrafter"), (8, "depth-pro"), (2, "depth-anything-v2")])
def test_auto_goes_by_the_gpus_free_memory(toy_models, monkeypatch, free, choice):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free * 10**9, 80 * 10**9))
    found = verdicts(EstimatorSettings("auto", MachineSettings(toy_models), licence="research", device="cuda"))
    assert next(verdict.model.name for verdict in found if verdict.usable) == choice
    if free < 24:
        assert f"needs about 24 GB of GPU memory, of which {free} GB are free" in found[0].reason


@pytest.mark.parametrize(
    ("device", "says"),
    [("tpu", "'tpu': expected auto, cpu, cuda, cuda:N"), ("cuda:99", "CUDA device|cuda:99"), ("cuda:0+1", "cuda:0.1")],
)
def test_a_device_that_is_none_or_not_here_is_named(tmp_path, device, says):
    for name in ("auto", "depth-anything-v2"):
        with pytest.raises(DeviceError, match=says):
            create_estimator(EstimatorSettings(name, MachineSettings(tmp_path), device=device))


def test_per_image_models_run(toy_models, write_clip):
    footage = write_clip(frames=3)
    clip = create_estimator(depth_anything(toy_models)).estimate(footage)
    depth = np.stack(list(clip))
    assert depth.shape == (3, 64, 96) and np.isfinite(depth).all() and depth.min() > 0
    assert (clip.scale, clip.intrinsics) == ("relative", None)


def test_depth_pro_gives_metres_and_the_focal_length(toy_models, write_clip):
    footage = write_clip(frames=2)
    machine = MachineSettings(toy_models, licence="research")
    settings = EstimatorSettings("depth-pro", machine, device="cpu", edges=None, temporal_alignment=False)
    clip = create_estimator(settings).estimate(footage)
    depth = np.stack(list(clip))
    assert clip.scale == "metric" and depth.shape == (2, 64, 96)
    focal = clip.intrinsics[0, 0, 0]
    assert 10 < focal < 1000 and np.allclose(clip.intrinsics, clip.intrinsics[0])
    # Through a lens twice as long, the same image is twice as far away.
    known = replace(settings, normalized_focal=2 * float(focal) / footage.width)
    found = create_estimator(known).estimate(footage)
    assert found.intrinsics[0, 0, 0] == pytest.approx(2 * focal)
    assert np.allclose(np.stack(list(found)), 2 * depth, rtol=1e-3)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows by one for each frame that anything in the process decodes from footage."""
    frames: list[int] = []

    def counted(*arguments, **options):
        for frame in read_frames(*arguments, **options):
            frames.append(1)
            yield frame

    for module in list(sys.modules.values()):
        if getattr(module, "read_frames", None) is read_frames and module.__name__.startswith("ex4d"):
            monkeypatch.setattr(module, "read_frames", counted)
    return frames


@pytest.mark.parametrize("name", ["depth-anything-v2", "depth-pro", "stand-in"])
def test_a_reconstruction_decodes_the_footage_twice(name, decoded, toy_models, write_clip, tmp_path):
    """Once to estimate depth and align it over time, once to build the scene along the refined edges."""
    footage = write_clip(frames=7)
    settings = EstimatorSettings(name, MachineSettings(toy_models, licence="research"), device="cpu")
    estimator = ModelEstimator(BrightIsNear()) if name == "stand-in" else create_estimator(settings)
    clip = estimator.estimate(footage)
    assert len(decoded) == 7
    scene = build_scene(footage, clip, intrinsics_from(96, 64), tmp_path / "scene", name="decoded twice")
    assert len(decoded) == 14
    assert np.array_equal(scene.depth(), np.stack(list(clip))), "as where the clip reads the footage itself"


def test_only_the_wanted_frames_are_estimated(write_clip):
    footage = probe(write_clip(frames=5).path, 3)
    clip = ModelEstimator(BrightIsNear()).estimate(footage)
    assert len(list(clip)) == len(clip) == 3
    assert len(list(clip.first(2))) == 2


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_clips_of_any_length(write_clip, frames):
    assert depth_of(write_clip(frames)).shape == (frames, 64, 96)


def test_portrait_and_narrow_footage(write_clip):
    assert depth_of(write_clip(2, width=64, height=160)).shape == (2, 160, 64)
    assert depth_of(write_clip(1, width=400, height=40)).shape == (1, 40, 400)
    assert size_in_patches(1080, 1920, 518, 14, 16 / 9) == (518, 924)
    assert size_in_patches(3840, 1600, 518, 14, 16 / 9) == (924, 378)


def test_black_footage_is_flat_and_reported(write_clip):
    footage = write_clip(images=np.zeros((3, 64, 96, 3), np.uint8), frames=3)
    clip = ModelEstimator(BrightIsNear()).estimate(footage)
    depth = np.stack(list(clip))
    assert np.isfinite(depth).all() and depth.min() == depth.max() > 0
    assert any("no depth" in note for note in clip.notes)


def test_still_footage_stays_still(write_clip, toy_models):
    footage = write_clip(frames=4, images=[moving_image(0, 96, 64)] * 4)
    clip = create_estimator(depth_anything(toy_models)).estimate(footage)
    depth = np.stack(list(clip))
    assert np.abs(np.log(depth) - np.log(depth[:1])).mean() < 0.02
    assert not clip.notes


def test_a_cut_is_found_and_reported(write_clip):
    one = [moving_image(index, 96, 64) for index in range(6)]
    other = [255 - moving_image(index, 96, 64)[::-1] for index in range(6)]
    clip = ModelEstimator(BrightIsNear()).estimate(write_clip(frames=12, images=one + other))
    assert any("a cut (at frame 6)" in note for note in clip.notes)
    uncut = ModelEstimator(BrightIsNear()).estimate(write_clip(frames=12, name="uncut"))
    assert not uncut.notes


def test_4k_is_worked_at_a_bounded_size_and_its_edges_are_the_images(write_clip):
    inside = np.zeros((2160, 3840), bool)
    inside[720:1440, 770:1490] = True
    image = np.where(inside[..., None], (220, 200, 120), (50, 60, 90)).astype(np.uint8)
    footage = write_clip(frames=1, images=[image])
    sizes = []

    class Watched(BrightIsNear):
        def predict(self, frames, step):
            for frame in frames:
                sizes.append(tuple(frame.shape[1:]))
                step("predict", 1)
                yield frame.mean(dim=0).numpy()

    (depth,) = ModelEstimator(Watched()).estimate(footage)
    assert depth.shape == (2160, 3840) and max(sizes[0]) <= 140
    near = depth < np.sqrt(depth.min() * depth.max())
    assert (near & inside).sum() / (near | inside).sum() > 0.97
    between = (depth > 1.1 * depth.min()) & (depth < 0.9 * depth.max())
    assert between.mean() < 0.01, "hardly a pixel hangs between the two surfaces"


def test_a_model_that_produces_nan_is_an_error(write_clip):
    class Broken(BrightIsNear):
        def predict(self, frames, step):
            for frame in frames:
                yield np.full(frame.shape[1:], np.nan, np.float32)

    with pytest.raises(DepthError, match="frame 0"):
        ModelEstimator(Broken()).estimate(write_clip(1))


def test_relative_disparity_becomes_bounded_depth():
    model = BrightIsNear()
    depth = model.depth(np.array([0, 0.5, 1], np.float32), 0.0, 1.0)
    assert depth == pytest.approx([100 * 10_000 / 3900, 2 * 10_000 / 3900, 10_000 / 3900])


def test_frames_are_resized_without_overshoot():
    frame = resized_frame(moving_image(0, 96, 64), 28, 42)
    assert frame.shape == (3, 28, 42) and frame.min() >= 0 and frame.max() <= 1
    assert math.isclose(float(frame.mean()), moving_image(0, 96, 64).mean() / 255, rel_tol=0.02)


def test_the_command_estimates_depth_and_reports_its_licence(toy_models, write_clip, tmp_path, capsys):
    from ex4d.cli.main import main
    from ex4d_core.scene import Scene

    footage = write_clip(frames=2)
    options = ["--models", str(toy_models), "--device", "cpu", "-o", str(tmp_path / "scene")]
    assert main(["reconstruct", str(footage.path), *options]) == 0
    told = capsys.readouterr().out
    assert "Depth Anything V2 (small); licence: Apache-2.0" in told and "50 degrees" in told
    manifest = Scene.open(tmp_path / "scene").manifest
    assert manifest.provenance["depth licence"] == "Apache-2.0" and manifest.depth_scale == "relative"
    pro = ["--estimator", "depth-pro", "--accept-licence", "depth-pro"]
    assert main(["reconstruct", str(footage.path), *options, *pro, "--overwrite"]) == 0
    assert "px, from the depth (Depth Pro)" in capsys.readouterr().out


def test_everything_else_works_without_the_depth_extra():
    """The packages are hidden from a fresh interpreter; the room imports, and names what is missing."""
    script = """
import sys
for name in ("diffusers", "transformers", "safetensors"):
    sys.modules[name] = None
from importlib.machinery import PathFinder
real = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name in ("diffusers", "transformers", "safetensors") else real(name, path, target))
from pathlib import Path
import ex4d.depth, ex4d.pipeline.reconstruct, ex4d.cli.reconstruct
for name in ("diffusers", "transformers", "safetensors"):
    del sys.modules[name]
try:
    machine = ex4d.machine.MachineSettings(Path("."))
    ex4d.depth.create_estimator(ex4d.depth.EstimatorSettings("video-depth-anything", machine))
except ex4d.depth.EstimatorUnavailableError as error:
    print(error)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert "needs transformers" in done.stdout and "pip install -e '.[depth]'" in done.stdout
