"""A take that was interrupted is finished by --resume, to the same files as without the interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch

import ex4d
from ex4d.cli import generate
from ex4d.cli.main import _verb_parser, main
from ex4d.cli.parsing import parse
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.scene import Scene, sha256_of
from ex4d_core.schema import encode
from ex4d_core.wan_settings import wan_preset

ROOT = Path(__file__).resolve().parents[2]
DEEP = OutputSettings(
    "exr", "dwaa", file_name="orbit_v{version:03}.{frame:04}", file_version=3, first_number=7, motion="both"
)
MOVE = ["--preset", "orbit", "--amount", "40"]

_KILLED = """
import os, signal, sys
from pathlib import Path
import ex4d
import torch

torch.set_num_threads(int(sys.argv[4]))  # another number rounds a few pixels of the filled holes the other way

def progress(stage, done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

ex4d.generate(ex4d.open_scene(sys.argv[1]), ex4d.orbit(40), Path(sys.argv[2]), progress=progress)
"""


def killed_after(frames: int, scene: Path, take: Path) -> None:
    """A process that generates a take, and is killed without a chance to clean up."""
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    command = [sys.executable, "-c", _KILLED, str(scene), str(take), str(frames), str(torch.get_num_threads())]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}).returncode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a take, but for what may differ between two takes of one request."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    request = json.loads(found.pop("request.json"))
    del request["made_by"]
    return {**found, "request": json.dumps(request).encode()}


@pytest.mark.parametrize("frames", [1, 4, 6])
def test_a_killed_take_is_finished_to_the_same_files(sample_scene, tmp_path, frames):
    """Its holes are large enough to be smoothed over time, so that each frame depends on those before."""
    scene, whole, take = sample_scene.path("color").parent, tmp_path / "whole", tmp_path / "take"
    command = ["generate", str(scene), *MOVE]
    assert main([*command, "-o", str(whole)]) == 0
    killed_after(frames, scene, take)
    made = {path.name: path.stat().st_mtime_ns for path in take.glob("frame_*.png")}
    assert len(made) == frames and not (take / "take.mp4").exists()

    assert main([*command, "-o", str(take), "--resume"]) == 0
    assert contents(take) == contents(whole)
    assert {name: (take / name).stat().st_mtime_ns for name in made} == made, "finished frames stay"


def test_resuming_is_safe_to_repeat(small_scene, tmp_path):
    """Without a take it makes one; a finished one stays as it is."""
    command = ["generate", str(small_scene.folder), *MOVE, "-o", str(tmp_path / "take"), "--resume"]
    assert main(command) == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "take").iterdir()}
    assert main(command) == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "take").iterdir()} == before


def test_a_damaged_frame_and_those_after_it_are_made_again(small_scene, tmp_path):
    command = ["generate", str(small_scene.folder), *MOVE, "-o"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    take = shutil.copytree(tmp_path / "whole", tmp_path / "take")
    (take / "take.mp4").unlink()
    frame = take / "frame_00003.png"
    frame.write_bytes(frame.read_bytes()[:-20])
    assert main([*command, str(take), "--resume"]) == 0
    assert contents(take) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--seed", "8"], "wan.seed (0, now 8)"),
        (["--amount", "20"], "camera"),
        (["--holes", "mark", "--occlusion", "open"], "render.occlusion ('thickness', now 'open'), preview.holes"),
        (["--label", "other"], "label ('', now 'other')"),
    ],
)
def test_a_take_of_another_request_is_not_continued(small_scene, tmp_path, changes, named, capsys):
    take = tmp_path / "take"
    command = ["generate", str(small_scene.folder), *MOVE, "-o", str(take)]
    assert main(command) == 0
    (take / "take.mp4").unlink()
    before = contents(take)
    assert main([*command, *changes, "--resume"]) == 1
    assert named in capsys.readouterr().err
    assert contents(take) == before


@pytest.mark.parametrize("preset", ["ex4d-reference", "standard"], ids=["version 0.1", "the preset of finals"])
def test_a_preview_is_continued_whatever_preset_the_version_that_began_it_wrote(small_scene, tmp_path, preset):
    take = tmp_path / "take"
    command = ["generate", str(small_scene.folder), *MOVE, "-o", str(take)]
    assert main(command) == 0
    whole = contents(take)
    written = json.loads((take / "request.json").read_text(encoding="utf-8"))
    written["wan"] = encode(wan_preset(preset, precision="fp8"))
    (take / "request.json").write_text(json.dumps(written), encoding="utf-8")
    for name in ("take.mp4", "frame_00003.png"):
        (take / name).unlink()
    assert main([*command, "--resume"]) == 0
    assert contents(take) == whole


def test_a_final_of_a_preview_has_the_words_and_the_seed_and_its_own_preset(small_scene, tmp_path):
    scene, take = str(small_scene.folder), str(tmp_path / "take")
    assert main(["generate", scene, *MOVE, "--prompt", "rain", "--seed", "3", "-o", take]) == 0
    words = [scene, "--again", take, "-o", str(tmp_path / "final"), "--engine", "wan"]
    for more, settings in (
        ([], wan_preset("standard", prompt="rain", seed=3)),
        (["--steps", "4", "--seed", "5"], wan_preset("standard", prompt="rain", seed=5, steps=4)),
        (["--wan-preset", "draft"], wan_preset("draft", prompt="rain", seed=3)),
    ):
        options = parse(_verb_parser("generate", generate), "generate", [*words, *more])
        assert generate._request_again(Scene.open(scene), options, pytest.fail).wan == settings


def test_a_take_of_another_scene_is_not_continued(small_scene, write_small_scene, tmp_path):
    ex4d.generate(ex4d.open_scene(small_scene.folder), ex4d.orbit(), tmp_path / "take")
    other = ex4d.open_scene(write_small_scene(tmp_path / "other", seed=3).folder)
    with pytest.raises(RequestError, match="of another scene"):
        ex4d.generate(other, ex4d.orbit(), tmp_path / "take", resume=True)


def test_a_stopped_take_says_how_it_goes_on(small_scene, tmp_path, capsys):
    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    take = tmp_path / "take"
    with pytest.raises(KeyboardInterrupt):
        ex4d.generate(ex4d.open_scene(small_scene.folder), ex4d.orbit(40), take, progress=stop)
    names = {"request.json", "camera.npz", "frame_00000.png", "frame_00001.png"}
    assert {path.name for path in take.iterdir()} == names
    command = ["generate", str(small_scene.folder), *MOVE, "-o", str(take)]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "unfinished take" in told and "--resume" in told and "--overwrite" in told
    assert main([*command, "--overwrite"]) == 0


def test_two_processes_do_not_write_one_take(small_scene, tmp_path, capsys):
    take, codes = tmp_path / "take", []

    def second(stage: str, done: int, total: int) -> None:
        if done == 2:
            command = ["generate", str(small_scene.folder), *MOVE, "-o", str(take)]
            codes.extend([main([*command, "--resume"]), main([*command, "--overwrite"])])

    ex4d.generate(ex4d.open_scene(small_scene.folder), ex4d.orbit(40), take, progress=second)
    assert codes == [1, 1] and "another ex4d is writing" in capsys.readouterr().err


@pytest.mark.parametrize(("chosen", "final"), [([], "watertight"), (["--occlusion", "open"], "open")])
def test_a_final_of_a_preview_has_its_own_engines_occlusion_unless_one_was_chosen(small_scene, tmp_path, chosen, final):
    scene, take = str(small_scene.folder), str(tmp_path / "take")
    assert main(["generate", scene, *MOVE, *chosen, "-o", take]) == 0
    again = ["generate", scene, "--again", take, "-o", str(tmp_path / "final")]
    for engine, occlusion in (("wan", final), ("preview", chosen[1] if chosen else "thickness")):
        options = parse(_verb_parser("generate", generate), "generate", [*again[1:], "--engine", engine])
        assert generate._request_again(Scene.open(scene), options, pytest.fail).render.occlusion == occlusion


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["--format", "mp4"], OutputSettings()),
        (["--format", "png16"], OutputSettings("png16", file_name=DEEP.file_name, file_version=3, first_number=7)),
        (["--format", "h265"], OutputSettings("h265", file_name=DEEP.file_name, file_version=3)),
        (["--format", "exr", "--motion", "none"], replace(DEEP, motion="none")),
        ([], DEEP),
    ],
)
def test_a_take_in_another_format_keeps_what_that_format_has(small_scene, tmp_path, typed, kept):
    scene, take = str(small_scene.folder), tmp_path / "take"
    assert main(["generate", scene, *MOVE, "-o", str(take)]) == 0
    written = json.loads((take / "request.json").read_text(encoding="utf-8"))
    (take / "request.json").write_text(json.dumps({**written, "output": DEEP.to_wire()}), encoding="utf-8")
    options = parse(_verb_parser("generate", generate), "generate", [scene, "--again", str(take), *typed])
    assert generate._request_again(Scene.open(scene), options, pytest.fail).output == kept


def test_a_stereo_take_is_made_again_with_one_eye_where_two_are_not_possible(small_scene, tmp_path):
    scene, take, notes = str(small_scene.folder), str(tmp_path / "take"), []
    assert main(["generate", scene, *MOVE, "--stereo", "side-by-side", "-o", take]) == 0
    words = [scene, "--again", take]
    options = parse(_verb_parser("generate", generate), "generate", [*words, "--engine", "wan"])
    made = generate._request_again(Scene.open(scene), options, notes.append)
    assert not made.stereo.is_on and made.frame_size == made.camera.size
    assert "wan" in notes[0] and "docs/how-to/stereo.md" in notes[0] and len(notes) == 1
    for typed in (["--label", "same"], ["--format", "exr"]):
        options = parse(_verb_parser("generate", generate), "generate", [*words, *typed])
        assert generate._request_again(Scene.open(scene), options, pytest.fail).stereo.is_on


def test_a_take_can_be_traced_to_what_made_it(sample_clip, tmp_path):
    footage = sample_clip / "footage.mp4"
    clip = [str(footage), "--depth", str(sample_clip / "depth.npz"), "--num_frames", "2"]
    assert main(["reconstruct", *clip, "-o", str(tmp_path / "scene")]) == 0
    command = ["generate", str(tmp_path / "scene"), "--size", "64x64", "--device", "cpu"]
    assert main([*command, "-o", str(tmp_path / "take")]) == 0
    made_by = json.loads((tmp_path / "take" / "request.json").read_text())["made_by"]
    assert datetime.fromisoformat(made_by.pop("date")).utcoffset() == timedelta(0)
    assert made_by.pop("device").startswith("CPU")
    assert made_by == {
        "ex4d": ex4d.__version__,
        "torch": torch.__version__,
        "rasterizer": "warp",
        "precision": "float32",
        "generated_at": [64, 64],
        "enlarged_by": "",
        "color_space": "",
        "footage": {"name": "footage.mp4", "sha256": sha256_of(footage), "timecode": "", "fps": [24, 1]},
    }
    assert main([*command[:2], "--again", str(tmp_path / "take"), "-o", str(tmp_path / "again")]) == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "take")
