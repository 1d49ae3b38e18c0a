"""The command line, as a user types it; every verb runs in this process through the real entry point."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ex4d
from bench.__main__ import main as bench_main
from ex4d.cli.main import VERBS, main
from ex4d.media import probe
from ex4d.pipeline.take_folder import saved_request
from ex4d_core.scene import Scene
from ex4d_core.take_files import ALL_TAKE_FILES

ROOT = Path(__file__).resolve().parents[2]


def test_every_verb_explains_itself(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        told = capsys.readouterr().out
        assert len(told) > 200
        assert verb != "models" or "\n\n  ex4d models list  " in told, "paragraphs and lists stay what they are"


def test_footage_and_depth_become_a_scene(sample_clip, tmp_path, capsys):
    out = tmp_path / "scene"
    clip = [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz")]
    assert main(["reconstruct", *clip, "--fov", "60", "-o", str(out)]) == 0
    scene = Scene.open(out)
    assert scene.source_camera().intrinsics[0, 0, 0] == pytest.approx(256 / np.tan(np.radians(30)))
    assert "from the user" in capsys.readouterr().out


def test_the_first_frames_alone_take_their_part_of_the_depth(sample_clip, tmp_path, capsys):
    clip = [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz"), "--frames", "3"]
    assert main(["reconstruct", *clip, "-o", str(tmp_path / "scene")]) == 0
    with np.load(sample_clip / "depth.npz") as arrays:
        np.testing.assert_array_equal(Scene.open(tmp_path / "scene").depth(), arrays["depth"][:3])
    np.save(tmp_path / "four.npy", np.ones((4, 512, 512), np.float32))
    clip[2] = str(tmp_path / "four.npy")
    assert main(["reconstruct", *clip, "-o", str(tmp_path / "other")]) == 1
    assert "has depth for 4 frames, but the footage footage.mp4 has 6" in capsys.readouterr().err


def test_footage_with_a_name_of_another_alphabet_goes_all_the_way(sample_clip, tmp_path):
    """As file servers hand them out that never heard of UTF-8."""
    footage = tmp_path / os.fsdecode("plan_déjà".encode("latin-1") + b".mp4")
    try:
        shutil.copy(sample_clip / "footage.mp4", footage)
    except OSError:
        pytest.skip("this file system takes no such names")
    depth = ["--depth", str(sample_clip / "depth.npz")]
    assert main(["reconstruct", str(footage), *depth, "--frames", "2", "-o", str(tmp_path / "scene")]) == 0
    assert Scene.open(tmp_path / "scene").manifest.name == "plan_d?j?"
    assert main(["generate", str(tmp_path / "scene"), "--size", "96x64", "-o", str(tmp_path / "take")]) == 0
    assert probe(tmp_path / "take" / "take.mp4").frames == 2


def test_an_assumed_lens_is_never_silent(sample_clip, tmp_path, capsys):
    clip = [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz")]
    assert main(["reconstruct", *clip, "-o", str(tmp_path / "scene")]) == 0
    assert "assumed" in capsys.readouterr().out


def test_without_depth_the_missing_estimator_is_named_with_what_to_download(sample_clip, tmp_path, capsys):
    clip, models = str(sample_clip / "footage.mp4"), tmp_path / "models"
    assert main(["reconstruct", clip, "--models", str(models), "-o", str(tmp_path / "scene")]) == 1
    told = capsys.readouterr().err
    assert f"ex4d models fetch depth-anything-v2 --models {models} (99 MB), or give --depth" in told
    assert main(["reconstruct", clip, "--estimator", "depthcrafter", "-o", str(tmp_path / "scene")]) == 1
    assert "may not be used for commercial work" in capsys.readouterr().err
    assert not (tmp_path / "scene").exists()


def test_a_render_is_lossless_in_npz(sample_scene, tmp_path):
    folder = sample_scene.path("color").parent
    out = tmp_path / "render.npz"
    assert main(["render", str(folder), "--preset", "orbit", "--amount", "-20", "--size", "96x64", "-o", str(out)]) == 0
    with np.load(out) as arrays:
        assert arrays["color"].shape == (6, 64, 96, 3)
        assert arrays["mask"].dtype == bool
        assert np.allclose(arrays["coverage"], arrays["alpha"].mean(axis=(1, 2)) / 255)


def test_a_camera_file_gives_what_its_preset_gave(sample_scene, tmp_path):
    folder, size = str(sample_scene.path("color").parent), ["--size", "96x64"]
    assert main(["render", folder, "--preset", "30", *size, "-o", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera_30.npz", "color_30.mp4", "mask_30.mp4"]
    pictures = []
    for which in (["--preset", "30"], ["--camera", str(tmp_path / "camera_30.npz")]):
        assert main(["render", folder, *which, *size, "-o", str(tmp_path / "render.npz"), "--overwrite"]) == 0
        with np.load(tmp_path / "render.npz") as arrays:
            pictures.append(arrays["color"])
    assert np.array_equal(*pictures)


def test_a_take_of_a_scene_lies_in_its_folder(sample_scene, tmp_path):
    folder = str(sample_scene.path("color").parent)
    assert main(["generate", folder, "--preset", "truck", "--size", "96x64", "-o", str(tmp_path), "--frames", "3"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([*ALL_TAKE_FILES, *(f"frame_0000{i}.png" for i in range(3))])


def test_an_earlier_take_in_the_folder_stays_until_there_is_a_new_one(sample_scene, tmp_path):
    folder, out = str(sample_scene.path("color").parent), ["--size", "96x64", "-o", str(tmp_path)]
    assert main(["generate", folder, "--preset", "truck", "--frames", "5", *out]) == 0
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["generate", folder, "--engine", "wan", *out, "--overwrite"]) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == earlier
    assert main(["generate", folder, "--frames", "3", *out, "--overwrite"]) == 0
    frames = sorted(tmp_path.glob("frame_*.png"))
    assert [path.name for path in frames] == [f"frame_0000{index}.png" for index in range(3)]
    assert not any(path.read_bytes() == earlier[path.name] for path in frames[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "nowhere", "-o", "out"], "nowhere is not a scene folder"),
        (["reconstruct", "/", "--depth", "d.npz"], "footage /"),
        (["reconstruct", "missing.mp4", "--depth", "d.npz"], "missing.mp4"),
        (["generate"], "give a scene folder"),
        (["jobs", "--fetch", "x"], "--out FOLDER"),
        (["jobs", "--backend", "nonsense"], "tcp://HOST:PORT"),
        (["jobs", "--prune=-3"], "--prune -3"),
        (["jobs", "--prune", "3", "--data", "nowhere"], "nowhere has no jobs"),
        (["demo", "--blender", "no-such-blender"], "no-such-blender"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert told.startswith(f"ex4d {arguments[0]}: ")


def test_an_unknown_preset_lists_the_known_ones(sample_scene, tmp_path, capsys):
    folder = str(sample_scene.path("color").parent)
    assert main(["render", folder, "--preset", "spiral", "-o", str(tmp_path)]) == 1
    assert "dolly_zoom" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["serve", "--create-keys", "--data", "data"], 0),
        (["jobs", "--backend", "nonsense"], 1),
    ],
)
def test_what_makes_no_pictures_does_not_wait_for_torch(tmp_path, arguments, code):
    """It takes seconds and memory; a service's workers import it."""
    script = f"import sys; from ex4d.cli.main import main; print(main({arguments!r}), 'torch' in sys.modules)"
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    command, variables = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=variables)
    assert done.stdout.splitlines()[-1] == f"{code} False"


def test_no_backend_says_how_to_start_one(capsys, free_port, monkeypatch):
    monkeypatch.setattr("ex4d.cli.jobs.ANSWER_SECONDS", 0.5)
    assert main(["jobs", "--backend", f"tcp://127.0.0.1:{free_port}"]) == 1
    assert "ex4d serve" in capsys.readouterr().err


def test_doctor_tells_what_is_here(capsys, free_port, roomy_disk):
    assert main(["doctor", "--backend", f"tcp://127.0.0.1:{free_port}"]) == 0
    told = capsys.readouterr().out
    for word in (
        "torch",
        "rasterizer warp",
        "rasterizer nvdiffrast",
        "rasterizer auto",
        "512x512",
        "engine preview",
        "estimator depth-anything-v2",
        "Blender",
        "configuration",
        "kernel cache",
        "data folder",
        "no backend replies",
    ):
        assert word in told
    if not torch.cuda.is_available():
        assert "[wan]" not in told, "packages for a GPU do not help a machine without one"


@pytest.fixture
def clip_file(tmp_path):
    """A near square before a far wall, as one .npz; returns its path and arrays."""
    depth = np.full((4, 32, 48), 4.0, np.float32)
    depth[:, 10:22, 16:32] = 2.0
    rgb = np.random.default_rng(3).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    arrays = {"depth": depth, "rgb": rgb, "intrinsics": np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])}
    np.savez(tmp_path / "clip.npz", **arrays)
    return tmp_path / "clip.npz", arrays


def test_a_render_takes_a_clip_of_arrays_in_place_of_a_scene(clip_file, tmp_path):
    path, arrays = clip_file
    still = np.repeat(np.eye(4)[None], 4, axis=0)
    np.savez(tmp_path / "camera.npz", extrinsics=still, intrinsics=arrays["intrinsics"])
    out = tmp_path / "out.npz"
    assert main(["render", str(path), "--camera", str(tmp_path / "camera.npz"), "-o", str(out)]) == 0
    with np.load(out) as rendered:
        assert rendered["mask"].all() and rendered["mask"].dtype == bool
        assert np.array_equal(rendered["color"], arrays["rgb"])
        assert (rendered["coverage"] == 1).all() and rendered["coverage"].shape == (4,)
    preset = ["--preset", "60", "--convention", "reference", "--rasterizer", "warp", "--device", "cpu"]
    assert main(["render", str(path), *preset, "-o", str(out), "--overwrite"]) == 0
    with np.load(out) as rendered:
        assert rendered["mask"][0].all()  # EX-4D's first frame is the source's
        assert np.allclose(rendered["coverage"], rendered["mask"].mean(axis=(1, 2)))
        assert 0.1 < rendered["coverage"][1] < 1.0


def test_what_hides_is_the_users_choice(clip_file, tmp_path):
    path, arrays = clip_file
    far_wall = np.where(arrays["depth"] == 4.0, 12.0, arrays["depth"]).astype(np.float32)
    np.savez(path, **{**arrays, "depth": far_wall})
    seen = {}
    for model in ("watertight", "thickness", "open"):
        out = tmp_path / f"{model}.npz"
        assert main(["render", str(path), "--preset", "30", "--occlusion", model, "-o", str(out)]) == 0
        with np.load(out) as rendered:
            seen[model] = rendered["mask"][-1].sum()
    assert seen["watertight"] < min(seen["thickness"], seen["open"]) and seen["thickness"] != seen["open"]
    assert main(["render", str(path), "--preset", "30", "-o", str(tmp_path / "default.npz")]) == 0
    with np.load(tmp_path / "default.npz") as rendered:
        assert rendered["mask"][-1].sum() == seen["thickness"]


def test_a_scene_is_rendered_in_the_convention_it_was_reconstructed_in(sample_clip, tmp_path):
    """Unless a flag says otherwise; on the command line and in the library, for renders and for takes."""
    clip = [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz"), "--num_frames", "2"]
    assert main(["reconstruct", *clip, "--convention", "reference", "-o", str(tmp_path / "scene")]) == 0
    seen = {}
    for name in ("", "reference", "centered"):
        out, chosen = tmp_path / f"{name or 'default'}.npz", ["--convention", name] if name else []
        assert main(["render", str(tmp_path / "scene"), "--preset", "30", *chosen, "-o", str(out)]) == 0
        with np.load(out) as arrays:
            seen[name] = arrays["mask"]
    assert np.array_equal(seen[""], seen["reference"]) and not np.array_equal(seen[""], seen["centered"])

    scene = ex4d.open_scene(tmp_path / "scene")
    assert np.array_equal(ex4d.render(scene, ex4d.arc(30)).mask, seen[""])
    assert np.array_equal(ex4d.render(scene, ex4d.arc(30), convention="centered").mask, seen["centered"])
    take = ex4d.generate(scene, ex4d.arc(30), tmp_path / "take")
    assert take.request.render.convention == "reference"
    assert main(["generate", str(tmp_path / "scene"), "--preset", "30", "-o", str(tmp_path / "cli")]) == 0
    assert saved_request(tmp_path / "cli", scene).render.convention == "reference"


def test_a_camera_that_sees_nothing_at_first_is_noted_with_the_other_convention(small_scene, tmp_path, capsys):
    """A camera that looks the other way, as one in EX-4D's signs does that is read in OpenCV's."""
    scene = ex4d.open_scene(small_scene.folder)
    camera = scene.source_camera()
    turned = replace(camera, world_to_camera=np.diag([-1.0, 1.0, -1.0, 1.0]) @ camera.world_to_camera)
    turned.save(tmp_path / "camera.npz")
    follow = [str(small_scene.folder), "--camera", str(tmp_path / "camera.npz")]
    for verb, out in (("render", "movies"), ("render", "render.npz"), ("generate", "take")):
        assert main([verb, *follow, "-o", str(tmp_path / out)]) == 0
        told = capsys.readouterr().err
        assert told.count("0 % seen") == 1 and "--camera-convention original" in told
    notes = []
    ex4d.render(scene, turned, note=notes.append)
    ex4d.generate(scene, turned, tmp_path / "other", note=notes.append)
    ex4d.render(scene, camera, note=notes.append)
    assert sum('convention="original"' in note for note in notes) == 2


def test_an_occlusion_model_that_a_convention_does_not_know_is_refused(clip_file, tmp_path, capsys):
    options = ["--occlusion", "thickness", "--convention", "reference", "-o", str(tmp_path / "out.npz")]
    assert main(["render", str(clip_file[0]), *options]) == 1
    assert "use watertight or open, or the centered convention" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": None}, "has no rgb: it needs depth, rgb and intrinsics"),
        ({"depth": np.full((4, 32, 48), np.nan, np.float32)}, "depth of frame 0 at row 0, column 0 is nan"),
        ({"depth": np.ones((4, 32, 47), np.float32)}, "rgb must be (4, 32, 47, 3) uint8, not (4, 32, 48, 3)"),
        ({"rgb": np.ones((4, 32, 48, 3), np.float32)}, "not (4, 32, 48, 3) float32"),
        ({"intrinsics": np.zeros((3, 3))}, "focal length of frame 0 is 0 pixels"),
        ({"intrinsics": np.array("wide")}, "intrinsics must be numbers"),
        ({"depth": np.full((4, 32, 48), 1e300)}, "row 0, column 0 is 1e+300"),
        ({"depth": np.ones((4, 1, 5), np.float32), "rgb": np.ones((4, 1, 5, 3), np.uint8)}, "at least 2 x 2 pixels"),
    ],
)
def test_a_clip_of_arrays_that_cannot_be_rendered_says_why(clip_file, change, message, tmp_path, capsys):
    path, arrays = clip_file
    np.savez(path, **{name: values for name, values in {**arrays, **change}.items() if values is not None})
    assert main(["render", str(path), "-o", str(tmp_path / "out.npz")]) == 1
    assert message in capsys.readouterr().err


def test_a_clip_file_that_is_none_says_so(tmp_path, capsys):
    (tmp_path / "text.npz").write_text("not a zip")
    for name, message in (("text.npz", "cannot be read as .npz"), ("nowhere.npz", "does not exist")):
        assert main(["render", str(tmp_path / name), "-o", str(tmp_path / "out.npz")]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"extrinsics": np.array(["a"])}, [], "extrinsics must be numbers"),
        ({"extrinsics": np.full((4, 4, 4), np.nan)}, [], "camera matrix of frame 0 is not finite"),
        ({"width": np.nan, "height": 5}, [], "nan"),
        ({"width": np.arange(3), "height": 5}, [], "[0, 1, 2]"),
        ({"width": 10**9, "height": 5}, [], "8192 pixels, not 1000000000x5"),
        ({}, ["--frames", "9"], "camera.npz has 4 frames, not 9"),
        ({}, ["--device", "cuda:0+1"], "cuda:0+1 names several"),
    ],
)
def test_a_camera_file_that_cannot_be_followed_says_why(clip_file, change, options, message, tmp_path, capsys):
    path, arrays = clip_file
    still = np.repeat(np.eye(4)[None], 4, axis=0)
    np.savez(tmp_path / "camera.npz", **{"extrinsics": still, "intrinsics": arrays["intrinsics"], **change})
    follow = ["--camera", str(tmp_path / "camera.npz"), *options]
    assert main(["render", str(path), *follow, "-o", str(tmp_path / "out.npz")]) == 1
    assert message in capsys.readouterr().err


def test_a_camera_file_may_be_followed_in_part(clip_file, tmp_path):
    path, arrays = clip_file
    still = np.repeat(np.eye(4)[None], 4, axis=0)
    np.savez(tmp_path / "camera.npz", extrinsics=still, intrinsics=arrays["intrinsics"])
    follow = ["--camera", str(tmp_path / "camera.npz"), "--frames", "2", "--first-frame", "1"]
    assert main(["render", str(path), *follow, "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as rendered:
        assert np.array_equal(rendered["color"], arrays["rgb"][1:3])


@contextmanager
def small_files_only(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("failing", ["color_30.mp4", "camera_30.npz"])
def test_colour_mask_and_camera_appear_together_or_not_at_all(clip_file, failing, tmp_path, capsys):
    out, command = tmp_path / "takes", ["render", str(clip_file[0]), "--preset", "30"]
    assert main([*command, "--frames", "1", "-o", str(out)]) == 0
    earlier = {path.name: path.read_bytes() for path in out.iterdir()}
    if failing == "camera_30.npz":
        (out / f"{failing}.partial").mkdir()
    # The mask is smaller than that, and so is what is written of the colour before its end.
    with small_files_only(5000 if failing == "color_30.mp4" else 10**6):
        assert main([*command, "-o", str(out), "--overwrite"]) == 1
    assert f"{failing}: cannot be written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == earlier


def test_a_render_that_does_not_fit_on_the_disk_leaves_what_was_there(clip_file, tmp_path, capsys):
    out = tmp_path / "takes" / "out.npz"
    assert main(["render", str(clip_file[0]), "--frames", "1", "-o", str(out)]) == 0
    earlier = out.read_bytes()
    with small_files_only(5000):
        assert main(["render", str(clip_file[0]), "-o", str(out), "--overwrite"]) == 1
    assert "out.npz: cannot be written (File too large)" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == [out] and out.read_bytes() == earlier


def test_commercial_work_is_kept_from_research_only_code(clip_file, tmp_path, capsys):
    options = ["--rasterizer", "nvdiffrast", "--licence", "commercial", "-o", str(tmp_path / "out.npz")]
    assert main(["render", str(clip_file[0]), *options]) == 1
    assert "use rasterizer warp" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_bench_of_masks_says_where_a_gpu_is_missing(capsys, monkeypatch):
    """With everything small: the table's rows, as README.md has them, from a real service too."""
    monkeypatch.setattr("bench.rendering.CPU_SIZE", (64, 64))
    monkeypatch.setattr("bench.rendering.SIZES", ((64, 48),))
    monkeypatch.setattr("bench.views.COVERAGE_CLIP", (3, 64, 64))
    monkeypatch.setattr("bench.views._VIEWS", 3)
    monkeypatch.setattr("bench.views._EDITS", 1)
    assert bench_main(["render", "--markdown"]) == 0
    told = capsys.readouterr().out
    assert "| warp on the CPU | " in told and "64x64, centered, thickness" in told
    for row in ("view over the socket, 1024x576", "coverage over the socket, 3 frames"):
        assert f"| {row} | " in told
    assert "| original's loop | no GPU | PyTorch finds no CUDA device on this machine |" in told


@pytest.mark.parametrize("verb", ["bench", "parity"])
def test_verbs_of_the_checkout_run_as_programs_of_their_own(verb, capfd):
    assert main([verb, "--help"]) == 0
    assert f"usage: ex4d {verb}" in capfd.readouterr().out


def test_without_a_checkout_its_verbs_say_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("ex4d.cli.checkout._SCRIPTS", tmp_path)
    assert main(["bench"]) == 1
    assert "source checkout" in capsys.readouterr().err


def test_a_mistake_in_a_verb_of_the_checkout_gets_one_sentence(capsys):
    assert bench_main(["depth", "--estimator", "midas"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ex4d bench: ") and "'midas'" in told and "Traceback" not in told
