"""`ex4d original recon`: the options, frames, sizes, lens and files of the original EX-4D's recon.py."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.cli.original import ACTIONS, routed
from ex4d.media import VideoWriter, probe, read_frames
from ex4d.pipeline.original import original_size
from ex4d_core.cameras import CameraPath
from ex4d_core.trajectories import build_path, move, reference_path, subject_distance

FRAMES = 6  # of the sample
# What the published scripts take, with their defaults; None: required here, found here, or (depth) written on request.
RECON = {
    "input_video": None,
    "num_frames": 49,
    "output_dir": None,
    "only_first_frame": 0,
    "save_depth": None,
    "cam": 180,
    "save_camera": 0,
    "save_mesh": 0,
    "filter_type": "angle",
    "use_dwmesh": 1,
    "input_size": 518,
}
GENERATE = {
    "color_video": None,
    "mask_video": None,
    "output_video": None,
    "height": 512,
    "width": 512,
    "num_frames": 49,
    "device": "cuda",
    "seed": 0,
    "num_inference_steps": 25,
    "cfg": 5.0,
    "ex4d_path": None,
    "text_encoder_path": None,
    "vae_path": None,
    "clip_path": None,
    "dit_dir": None,
}


@pytest.fixture
def recon(sample_clip, tmp_path):
    """Runs the command on the sample's footage and depth; returns its folder."""

    def run(*options: str, code: int = 0, folder: Path = tmp_path / "new" / "out", clip: Path = sample_clip) -> Path:
        paths = ["--input_video", clip / "footage.mp4", "--depth", clip / "depth.npz", "--output_dir", folder]
        words = [
            "original",
            "recon",
            *map(str, paths),
            "--num_frames",
            str(FRAMES),
            "--device",
            "cpu",
            "--overwrite",
            *options,
        ]
        assert main(words) == code
        return folder

    return run


def frames_of(path: Path) -> np.ndarray:
    return np.array(list(read_frames(path))).astype(int)


@pytest.mark.parametrize(("action", "options"), [("recon", RECON), ("generate", GENERATE)])
def test_every_option_of_the_published_script_is_there_with_its_default(action, options):
    parser = argparse.ArgumentParser()
    ACTIONS[action].add_arguments(parser)
    for name, default in options.items():
        assert f"--{name}" in parser._option_string_actions
        assert parser.get_default(name) == default, name


def test_it_writes_the_originals_files_and_no_others(recon):
    folder = recon("--save_mesh", "--save_camera")
    assert sorted(path.name for path in folder.iterdir()) == [
        "DW-Mesh.ply",
        "camera_180.npz",
        "color_180.mp4",
        "mask_180.mp4",
    ]
    for name in ("color_180.mp4", "mask_180.mp4"):
        made = probe(folder / name)
        assert (made.width, made.height, made.frames, made.fps) == (512, 512, FRAMES, 30)


def test_camera_and_mesh_are_written_on_request_only(recon):
    assert {path.name for path in recon("--cam", "-30").iterdir()} == {"color_-30.mp4", "mask_-30.mp4"}


def test_its_switches_may_carry_a_number_as_in_earlier_versions(recon):
    names = {path.name for path in recon("--save_mesh", "1", "--save_camera", "0", "--cam", "60").iterdir()}
    assert names == {"color_60.mp4", "mask_60.mp4", "DW-Mesh.ply"}


def test_a_script_for_the_originals_camera_file_reads_ours(recon, sample_clip):
    """Shapes, types and signs: rows 0 to 2 of right, up, forward negated, so that the camera looks along +z."""
    folder = recon("--cam", "60", "--save_camera")
    with np.load(folder / "camera_60.npz") as file:
        extrinsics, intrinsics = file["extrinsics"], file["intrinsics"]
        assert set(file.files) == {"extrinsics", "intrinsics"}
    assert extrinsics.shape == (FRAMES, 4, 4) and extrinsics.dtype == np.float32
    assert intrinsics.dtype == np.float32
    np.testing.assert_array_equal(intrinsics, [[500, 0, 256], [0, 500, 256], [0, 0, 1]])
    raw = extrinsics * np.array([-1, -1, -1, 1])[:, None]
    np.testing.assert_allclose(raw[0, :3, :3], np.diag([-1, 1, 1]), atol=1e-6)  # right = forward x up
    with np.load(sample_clip / "depth.npz") as file:
        distance = subject_distance(file["depth"][0])
    expected = reference_path(60, FRAMES, intrinsics, 512, 512, distance)
    read = CameraPath.load(folder / "camera_60.npz", convention="original")
    np.testing.assert_allclose(read.world_to_camera, expected.world_to_camera, atol=1e-5)
    assert read.size == (512, 512)


@pytest.mark.parametrize("degrees", [30, 60, 90, 180])
def test_its_camera_is_the_originals(degrees, read_golden, tmp_path):
    golden = read_golden("ex4d_geometry.npz")
    depth = np.pad(golden["depth"][0][1:-1, 1:-1], 1, constant_values=100)
    camera = reference_path(degrees, 49, golden["intrinsics"], 320, 192, float(depth.min()) + 0.15)
    camera.save(tmp_path / "camera.npz", convention="original")
    with np.load(tmp_path / "camera.npz") as file:
        negated = golden[f"extrinsics_{degrees}"] * np.array([-1, -1, -1, 1])[:, None]
        np.testing.assert_allclose(file["extrinsics"], negated, atol=1e-6)


@pytest.mark.parametrize(("frames", "rounds"), [(49, 1), (98, 2), (7, 7)])
def test_moves_of_another_length_go_as_far_as_the_originals(frames, rounds):
    lens = np.array([[500.0, 0, 256], [0, 500, 256], [0, 0, 1]])
    ours = reference_path(10, frames, lens, 512, 512, 2.0)
    expected = build_path(move(str(10 * rounds)), frames, lens, 512, 512, 2.0)
    np.testing.assert_allclose(ours.world_to_camera, expected.world_to_camera, atol=1e-12)


def test_it_says_that_a_move_of_another_length_goes_farther(recon, capsys):
    recon("--cam", "3")
    assert "8.17 times as far" in capsys.readouterr().err


def test_frame_0_is_the_source_frame_wholly_seen(recon, sample_clip):
    folder = recon("--cam", "90")
    source = frames_of(sample_clip / "footage.mp4")[0]
    assert np.abs(frames_of(folder / "color_90.mp4")[0] - source).mean() < 3
    masks = frames_of(folder / "mask_90.mp4")
    assert masks[0].min() > 250 and 5 < masks[1].mean() < 250


def test_the_first_mesh_alone_stands_still(recon, sample_clip):
    """From the source's own view, nothing changes; without the option the clip moves."""
    still = frames_of(recon("--cam", "0", "--only_first_frame", "1") / "color_0.mp4")
    moving = frames_of(recon("--cam", "0") / "color_0.mp4")
    # Frame 0 is the source itself, the others are drawn.
    assert np.abs(still[-1] - still[1]).mean() < 1
    assert np.abs(moving[-1] - moving[1]).mean() > 2 * np.abs(still[-1] - still[1]).mean() + 0.5


def test_without_the_watertight_mesh_the_background_shines_through(recon):
    watertight = frames_of(recon("--cam", "3") / "mask_3.mp4")[-1].mean()
    opened = frames_of(recon("--cam", "3", "--use_dwmesh", "0") / "mask_3.mp4")[-1].mean()
    assert opened > watertight + 1


def test_the_two_rules_hide_different_faces(recon):
    angle = frames_of(recon("--cam", "3") / "mask_3.mp4")[-1]
    boundary = frames_of(recon("--cam", "3", "--filter_type", "boundary") / "mask_3.mp4")[-1]
    assert np.abs(angle - boundary).mean() > 0.5


def test_the_mesh_is_black_where_it_is_occluded_and_smaller_when_open(recon):
    header = (recon("--save_mesh") / "DW-Mesh.ply").read_bytes()[:400].decode("ascii", "replace")
    assert "element vertex 262144" in header and f"element face {2 * 511 * 511 + 2}" in header
    body = (recon("--save_mesh") / "DW-Mesh.ply").read_bytes().partition(b"end_header\n")[2]
    vertices = np.frombuffer(body, [("position", "<f4", 3), ("color", "u1", 3)], count=512 * 512)
    assert not vertices["color"].reshape(512, 512, 3)[0, 1:-1].any(), "the border hides what the footage never saw"
    assert np.all(vertices["position"].reshape(512, 512, 3)[0, :, 2] == 100)
    whole = (recon() / "DW-Mesh.ply").stat().st_size
    assert (recon("--save_mesh", "--use_dwmesh", "0") / "DW-Mesh.ply").stat().st_size < whole


def test_depth_is_saved_on_request_and_can_be_given_again(recon, sample_clip, tmp_path):
    folder = recon("--save_depth", "1")
    with np.load(folder / "depth.npz") as saved, np.load(sample_clip / "depth.npz") as given:
        np.testing.assert_array_equal(saved["depth"], given["depth"])
    again = ["original", "recon", "--input_video", str(sample_clip / "footage.mp4"), "--num_frames", "6"]
    again += ["--depth", str(folder / "depth.npz"), "--output_dir", str(tmp_path / "again"), "--device", "cpu"]
    assert main(again) == 0
    assert (tmp_path / "again" / "color_180.mp4").read_bytes() == (folder / "color_180.mp4").read_bytes()


def test_it_takes_the_first_frames(recon, sample_clip, tmp_path):
    folder = recon("--num_frames", "2", "--cam", "0")
    made, source = frames_of(folder / "color_0.mp4"), frames_of(sample_clip / "footage.mp4")
    assert len(made) == 2 and np.abs(made[0] - source[0]).mean() < 3


def test_by_default_49_frames_are_needed_and_too_few_are_refused(sample_clip, tmp_path, capsys):
    words = ["--input_video", sample_clip / "footage.mp4", "--depth", sample_clip / "depth.npz"]
    assert main(["original", "recon", *map(str, words), "--output_dir", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "6 frames" in told and "49" in told and "--num_frames 6" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (512, 512, (512, 512)),
        (1920, 1080, (1024, 576)),
        (1080, 1920, (576, 1024)),
        (1040, 500, (1024, 512)),
        (854, 480, (832, 512)),
        (10, 10, (64, 64)),
    ],
)
def test_footage_is_resized_to_multiples_of_64(width, height, expected):
    assert original_size(width, height) == expected


def test_footage_of_another_size_has_500_pixels_of_focal_length_at_the_new_one(recon, tmp_path):
    clip = tmp_path / "odd"
    clip.mkdir()
    with VideoWriter(clip / "footage.mp4", 100, 140, Fraction(24)) as movie:
        for _ in range(FRAMES):
            movie.write(np.full((140, 100, 3), 90, np.uint8))
    np.savez(clip / "depth.npz", depth=np.full((FRAMES, 140, 100), 3, np.float32))
    folder = recon("--save_camera", "--save_depth", "1", clip=clip)
    assert (probe(folder / "color_180.mp4").width, probe(folder / "color_180.mp4").height) == (128, 128)
    with np.load(folder / "camera_180.npz") as camera, np.load(folder / "depth.npz") as depth:
        np.testing.assert_array_equal(camera["intrinsics"], [[500, 0, 64], [0, 500, 64], [0, 0, 1]])
        assert depth["depth"].shape == (FRAMES, 140, 100), "of the footage, so that it can be given again"


def test_what_has_no_effect_there_has_none_here_and_says_so(recon, capsys):
    before = (recon() / "color_180.mp4").read_bytes()
    capsys.readouterr()
    assert (recon("--input_size", "280") / "color_180.mp4").read_bytes() == before
    assert "--input_size has no effect" in capsys.readouterr().err
    recon("--filter_type", "boundary", "--use_dwmesh", "0")
    assert "--use_dwmesh 0 has no effect" in capsys.readouterr().err


def test_depth_is_estimated_by_depthcrafter_if_the_licence_allows(sample_clip, tmp_path, capsys):
    words = ["original", "recon", "--input_video", str(sample_clip / "footage.mp4"), "--num_frames", "6"]
    words += ["--output_dir", str(tmp_path / "out"), "--models", str(tmp_path / "models")]
    assert main([*words, "--licence", "commercial"]) == 1
    told = capsys.readouterr().err
    assert "depthcrafter" in told and "--accept-licence depthcrafter" in told
    pytest.importorskip("diffusers", reason="DepthCrafter needs the extra depth")
    for allowed in (["--licence", "research"], ["--accept-licence", "depthcrafter"]):
        assert main([*words, *allowed]) == 1
        assert "ex4d models fetch depthcrafter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "nothing is made in place of estimated depth"


def test_footage_is_never_replaced(sample_clip, tmp_path, capsys):
    clip = tmp_path / "color_180.mp4"
    clip.write_bytes((sample_clip / "footage.mp4").read_bytes())
    words = ["--input_video", clip, "--depth", sample_clip / "depth.npz", "--output_dir", tmp_path, "--num_frames", 6]
    assert main(["original", "recon", *map(str, words)]) == 1
    assert "color_180.mp4" in capsys.readouterr().err
    assert clip.read_bytes() == (sample_clip / "footage.mp4").read_bytes()


@pytest.mark.parametrize(
    ("plain", "action"),
    [
        (["reconstruct", "--input_video", "c.mp4"], "recon"),
        (["reconstruct", "--cam=30", "--input_video=c.mp4"], "recon"),
        (["generate", "--color_video", "c.mp4"], "generate"),
        (["generate", "--seed", "3", "--mask_video=m.mp4"], "generate"),
        (["generate", "--output_video", "o.mp4"], "generate"),
    ],
)
def test_plain_flags_of_the_original_run_the_original(plain, action):
    assert routed(plain) == ["original", action, *plain[1:]]


@pytest.mark.parametrize(
    "words", [[], ["reconstruct", "clip.mp4", "--num_frames", "3"], ["generate", "scene"], ["render", "--input_video"]]
)
def test_other_command_lines_stay_as_they_are(words):
    assert routed(words) == words


def test_plain_flags_write_what_the_original_verb_writes(recon, sample_clip, tmp_path):
    words = ["--input_video", sample_clip / "footage.mp4", "--depth", sample_clip / "depth.npz", "--num_frames", 6]
    assert main(["reconstruct", *map(str, words), "--output_dir", str(tmp_path / "plain"), "--device", "cpu"]) == 0
    assert (tmp_path / "plain" / "mask_180.mp4").read_bytes() == (recon() / "mask_180.mp4").read_bytes()


def test_wrong_usage_is_named(capsys):
    for words, said in (
        (["reconstruct", "--input_video", "c.mp4"], "--output_dir"),
        (["generate", "--color_video", "c.mp4"], "--mask_video"),
        (["original", "recon", "--input_video", "c.mp4", "--output_dir", "o", "--cam", "orbit"], "'orbit'"),
        (["original", "recon", "--input_video", "c.mp4", "--output_dir", "o", "--filter_type", "x"], "boundary"),
        (["original"], "ACTION"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2 and said in capsys.readouterr().err
