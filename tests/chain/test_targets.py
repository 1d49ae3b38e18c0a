"""Nothing of the user's is overwritten or deleted, and nothing of ours unless it was asked for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.media import write_png
from ex4d.pipeline.targets import OutputError, files_of_take, is_ours, mark_results, require_results_folder
from ex4d_core.safe_files import LinkError

SIZE = ["--size", "48x32"]


@pytest.fixture
def folder(small_scene) -> str:
    return str(small_scene.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def plate(tmp_path) -> Path:
    """A user's image sequence with the names that our frames have, more of them than a take makes."""
    plate = tmp_path / "plate"
    plate.mkdir()
    for index in range(9):
        write_png(plate / f"frame_{index:05d}.png", np.full((32, 48, 3), index, np.uint8))
    return plate


@pytest.mark.parametrize("also", [[], ["--overwrite"], ["--resume"]])
def test_a_take_is_not_made_among_other_files(folder, plate, also, capsys):
    before = contents(plate)
    assert main(["generate", folder, "--preset", "orbit", "-o", str(plate), *also]) == 1
    assert f"{plate} holds something else (frame_00000.png)" in capsys.readouterr().err
    assert contents(plate) == before
    with pytest.raises(OutputError, match="holds something else"):
        ex4d.generate(ex4d.open_scene(folder), ex4d.orbit(), plate, overwrite=bool(also))
    assert contents(plate) == before


def test_a_take_is_replaced_when_asked_and_nothing_else_in_its_folder(folder, tmp_path, capsys):
    take = tmp_path / "take"
    generate = ["generate", folder, "--preset", "orbit", "-o", str(take)]
    assert main(generate) == 0
    (take / "notes.txt").write_text("good")
    (take / "frame_00006.png").write_bytes(b"not of this take, which has 6 frames")
    before = contents(take)
    assert main([*generate, "--preset", "dolly_in"]) == 1
    assert "--overwrite" in capsys.readouterr().err and contents(take) == before
    assert main([*generate, "--preset", "dolly_in", "--frames", "2", "--overwrite"]) == 0
    after = contents(take)
    kept = {"notes.txt", "frame_00006.png"}
    movies = {"take.mp4", "color.mp4", "mask.mp4", "remembered.mp4", "camera.npz", "request.json"}
    assert set(after) == {*kept, *movies, "frame_00000.png", "frame_00001.png"}
    assert all(after[name] == before[name] for name in kept)


def test_a_file_beside_a_take_stops_a_longer_take(write_small_scene, tmp_path, capsys):
    scene, take = write_small_scene(tmp_path / "scene", frames=6).folder, tmp_path / "take"
    generate = ["generate", str(scene), "-o", str(take)]
    assert main([*generate, "--frames", "2"]) == 0
    (take / "frame_00004.png").write_bytes(b"the user's")
    before = contents(take)
    assert main([*generate, "--overwrite"]) == 1
    assert "frame_00004.png, which is not part of its take" in capsys.readouterr().err
    assert contents(take) == before


@pytest.mark.parametrize("stored", ["{", "[]", '{"camera": {"frames": 3}}', '{"scene": 3, "camera": {"frames": "x"}}'])
def test_a_request_of_another_program_makes_no_take(tmp_path, stored, folder):
    (tmp_path / "request.json").write_text(stored)
    (tmp_path / "take.mp4").write_bytes(b"the user's")
    assert files_of_take(tmp_path) == ()
    assert main(["generate", folder, "-o", str(tmp_path), "--overwrite"]) == 1
    assert (tmp_path / "take.mp4").read_bytes() == b"the user's"


def test_a_render_replaces_only_renders_and_only_when_asked(folder, tmp_path, capsys):
    out = tmp_path / "renders"
    render = ["render", folder, "--preset", "30", "-o", str(out)]
    assert main(render) == 0
    before = contents(out)
    assert all(is_ours(path) for path in out.iterdir())
    assert main([*render, "--frames", "2"]) == 1
    assert "color_30.mp4 exists; to replace it" in capsys.readouterr().err and contents(out) == before
    assert main([*render, "--frames", "2", "--overwrite"]) == 0
    assert contents(out) != before
    assert main(["render", folder, "--preset", "60", "-o", str(out)]) == 0, "another one beside it"

    shutil.copyfile(Path(folder) / "color.npy", out / "mask_90.mp4")
    before = contents(out)
    assert main(["render", folder, "--preset", "90", "-o", str(out), "--overwrite"]) == 1
    assert "mask_90.mp4 exists, and ex4d did not make it" in capsys.readouterr().err
    assert contents(out) == before


def test_views_are_saved_over_views_only_when_asked(folder, tmp_path):
    views = ex4d.render(ex4d.open_scene(folder), ex4d.orbit(), frames=2)
    for path in (tmp_path / "movies", tmp_path / "views.npz"):
        views.save(path)
        with pytest.raises(OutputError, match="overwrite=True"):
            views.save(path)
        views.save(path, overwrite=True)
    np.savez(tmp_path / "mine.npz", depth=np.ones(3))
    with pytest.raises(OutputError, match="did not make it"):
        views.save(tmp_path / "mine.npz", overwrite=True)


def test_a_scene_is_replaced_only_when_asked(sample_clip, tmp_path, capsys):
    clip = [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz"), "--num_frames", "2"]
    reconstruct = ["reconstruct", *clip, "-o", str(tmp_path / "scene")]
    assert main(reconstruct) == 0
    digest = ex4d.open_scene(tmp_path / "scene").digest
    assert main([*reconstruct, "--name", "other"]) == 1
    assert "holds a scene already" in capsys.readouterr().err
    assert ex4d.open_scene(tmp_path / "scene").digest == digest
    assert main([*reconstruct, "--name", "other", "--overwrite"]) == 0
    assert ex4d.open_scene(tmp_path / "scene").manifest.name == "other"
    with pytest.raises(OutputError, match="holds a scene already"):
        ex4d.reconstruct(clip[0], tmp_path / "scene", depth=clip[2], frames=2)


def test_an_output_is_never_an_input(folder, sample_clip, tmp_path, capsys):
    """Not through a link either, and not with --overwrite."""
    arrays = tmp_path / "clip.npz"
    rgb = np.zeros((2, 32, 48, 3), np.uint8)
    lens = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    np.savez(arrays, depth=np.ones((2, 32, 48), np.float32), rgb=rgb, intrinsics=lens)
    linked = tmp_path / "linked.npz"
    os.link(arrays, linked)
    before = arrays.read_bytes()
    for out in (arrays, linked):
        assert main(["render", str(arrays), "-o", str(out), "--overwrite"]) == 1
        assert "would overwrite its own input" in capsys.readouterr().err
    assert arrays.read_bytes() == before

    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for out in (folder, str(tmp_path / "link")):
        assert main(["generate", folder, "-o", out, "--overwrite"]) == 1
        assert "holds the input" in capsys.readouterr().err
    take = str(tmp_path / "take")
    assert main(["generate", folder, *SIZE, "-o", take]) == 0
    assert main(["generate", folder, "--again", take, "-o", take, "--overwrite"]) == 1
    camera = ["--camera", f"{take}/camera.npz"]
    assert main(["generate", folder, *camera, "-o", take, "--overwrite"]) == 1
    movies = ["--color_video", f"{take}/color.mp4", "--mask_video", f"{take}/mask.mp4"]
    assert main(["generate", *movies, "--output_video", f"{take}/color.mp4", "--overwrite"]) == 1
    assert main(["reconstruct", f"{take}/take.mp4", "-o", take, "--overwrite"]) == 1
    assert len(list(Path(take).iterdir())) == 12


@pytest.mark.parametrize(
    ("verb", "name", "possible"),
    [
        ("generate", "x.exr", "folder of 8-bit PNG frames"),
        ("generate", "x.MOV", "folder of 8-bit PNG frames"),
        ("render", "x.exr", "one lossless .npz"),
        ("render", "x.mov", "H.264 .mp4"),
    ],
)
def test_a_format_that_is_not_written_is_refused_with_what_is(folder, tmp_path, verb, name, possible, capsys):
    assert main([verb, folder, "-o", str(tmp_path / name)]) == 1
    assert possible in capsys.readouterr().err and not (tmp_path / name).exists()


def test_a_folder_may_have_a_dot_in_its_name(folder, tmp_path):
    assert main(["generate", folder, *SIZE, "--frames", "1", "-o", str(tmp_path / "shot.v2")]) == 0
    assert json.loads((tmp_path / "shot.v2" / "request.json").read_text())["camera"]["frames"] == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights of their own on Windows")
def test_the_mark_of_a_job_is_neither_read_nor_written_through_a_link(tmp_path):
    folder, mine = tmp_path / "results", tmp_path / "mine.txt"
    folder.mkdir()
    mine.write_text("j1")
    (folder / ".ex4d-job").symlink_to(mine)
    (folder / "notes.txt").write_text("no result")
    with pytest.raises(OutputError, match="holds something else"):
        require_results_folder(folder, "j1")
    with pytest.raises(LinkError):
        mark_results(folder, "j2")
    assert mine.read_text() == "j1"
