"""Send to Farm: the file of shots that it writes, and the command that makes them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import bpy
import numpy as np
import pytest

from ex4d_core.cameras import CameraPath

from .conftest import backend_environment


def batch(backend_python: str, *words: object) -> str:
    command = [backend_python, "-m", "ex4d", "batch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=backend_environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def request_of(file: Path, name: str) -> dict:
    return json.loads((file.parent / "requests" / name / "request.json").read_text(encoding="utf-8"))


def test_shots_are_written_for_the_farm_and_made_as_preview_would_make_them(shot, backend_python, tmp_path):
    scene = bpy.context.scene
    scene.ex4d_shot.label = "arc / blue"
    bpy.ops.ex4d.add_shot()
    scene.ex4d_shots[-1].label = "arc / blue"
    scene.ex4d_shots[-1].holes = "mark"
    chosen = scene.ex4d_shot_index
    assert bpy.ops.ex4d.send_to_farm(frames_per_task=6) == {"FINISHED"}
    file = Path(scene.ex4d_farm.file)
    assert file == tmp_path / "farm" / "shot_1" / "shots.toml" and scene.ex4d_shot_index == chosen
    names = scene.ex4d_farm.shots.split(",")
    assert names == ["arc_blue_0011-0016", "arc_blue_0017-0019", "arc_blue_0011-0016_2", "arc_blue_0017-0019_2"]
    text = file.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and 'again = "requests/arc_blue_0011-0016"' in text
    second = request_of(file, names[1])
    assert (second["first_frame"], second["camera"]["frames"], second["engine"]) == (6, 3, "preview")
    assert [request_of(file, name)["preview"]["holes"] for name in names[1::2]] == ["fill", "mark"]
    assert batch(backend_python, file, "--list").splitlines() == names
    batch(backend_python, file, "--only", names[1], "--device", "cpu")
    take = file.with_suffix("") / names[1]
    assert (take / "take.mp4").is_file() and len(list(take.glob("frame_*.png"))) == 3
    made = json.loads((take / "request.json").read_text(encoding="utf-8"))
    assert made["label"] == names[1] and made["render"] == second["render"]


def test_finals_are_whole_and_a_shot_each_for_every_seed(shot, tmp_path):
    scene = bpy.context.scene
    scene.ex4d_shot.label, scene.ex4d_shot.final.takes, scene.ex4d_shot.final.seed = "arc", 2, 7
    for number in (1, 2):
        assert bpy.ops.ex4d.send_to_farm(engine="wan", frames_per_task=6) == {"FINISHED"}
        assert Path(scene.ex4d_farm.file).parent == tmp_path / "farm" / f"shot_{number}", "nothing is replaced"
    names = scene.ex4d_farm.shots.split(",")
    assert names == ["arc_seed_7", "arc_seed_8"]
    for seed, name in zip((7, 8), names, strict=True):
        request = request_of(Path(scene.ex4d_farm.file), name)
        assert (request["engine"], request["wan"]["seed"], request["camera"]["frames"]) == ("wan", seed, 9)


def test_a_shot_that_follows_the_active_camera_is_sent_with_it(shot):
    """The active shot has a camera of its own, which becomes the active one wherever the shot is chosen."""
    scene = bpy.context.scene
    looked_through = bpy.data.objects["arc"].copy()
    looked_through.animation_data_clear()
    looked_through.location.x += 0.5
    bpy.context.collection.objects.link(looked_through)
    bpy.ops.ex4d.add_shot()
    scene.ex4d_shots[-1].camera = bpy.data.objects["arc"]
    scene.ex4d_shots[0].use_active_camera = True
    scene.ex4d_shots[0].label, scene.ex4d_shots[-1].label = "followed", "own"
    bpy.ops.ex4d.add_shot()
    scene.ex4d_shots[-1].use_active_camera, scene.ex4d_shots[-1].label = True, "last"
    scene.ex4d_shot_index = 1
    scene.camera = looked_through
    assert bpy.ops.ex4d.send_to_farm() == {"FINISHED"}
    assert (scene.ex4d_shot_index, scene.camera) == (1, looked_through)
    requests = Path(scene.ex4d_farm.file).parent / "requests"
    cameras = {
        name: CameraPath.load(requests / name / "camera.npz").world_to_camera for name in ("followed", "own", "last")
    }
    np.testing.assert_array_equal(cameras["followed"], cameras["last"])
    assert not np.allclose(cameras["followed"], cameras["own"])


def test_without_a_scene_there_is_nothing_to_send():
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.ex4d.send_to_farm()
