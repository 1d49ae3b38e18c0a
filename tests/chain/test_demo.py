"""The demo as a user runs it: real backend, real Blender, and everything it promises lies in its folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.demo.chain import blender_modules
from ex4d.media import probe, read_frames, read_png
from ex4d_core.cameras import CameraPath

DATA = Path(__file__).resolve().parents[1] / "data"

LOOK_INSIDE = """
import bpy, json, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[-1])
scene = bpy.context.scene
editor = bpy.data.scenes["EX-4D Edit"].sequence_editor
strips = editor.strips if bpy.app.version >= (4, 4, 0) else editor.sequences
mesh = next(one for one in bpy.data.objects if one.type == "MESH")
scene.frame_set(scene.frame_start + 30)
evaluated = mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
corner = evaluated.data.vertices[100_000].co
print("FOUND " + json.dumps({
    "camera": scene.camera.name,
    "curves": scene.camera.animation_data is not None and scene.camera.data.animation_data is not None,
    "vertices": len(mesh.data.vertices),
    "moved": (corner - mesh.data.vertices[100_000].co).length,
    "images": [image.filepath for image in bpy.data.images if image.filepath],
    "caches": [modifier.filepath for modifier in mesh.modifiers if modifier.type == "MESH_CACHE"],
    "strips": [[one.type, one.filepath if one.type == "MOVIE" else "", one.frame_final_start, one.frame_final_duration]
               for one in strips],
    "missing": [path for path in bpy.utils.blend_paths(absolute=True) if not __import__("os").path.exists(path)],
}))
"""


@pytest.fixture(scope="module")
def blender() -> str:
    python = os.environ.get("EX4D_BLENDER_PYTHON")
    if not python:
        pytest.fail("EX4D_BLENDER_PYTHON must name a Python that has bpy; scripts/test.py sets it")
    return python


@pytest.fixture(scope="module")
def demo(blender, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "demo"
    assert main(["demo", "--blender", blender, "--out", str(folder)]) == 0
    return folder


def test_a_demo_is_not_put_among_other_files(tmp_path, capsys):
    """It would replace a folder of takes."""
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "frame.png").write_bytes(b"the user's")
    assert main(["demo", "--blender", sys.executable, "--out", str(tmp_path)]) == 1
    assert "holds something else (takes)" in capsys.readouterr().err
    assert (tmp_path / "takes" / "frame.png").read_bytes() == b"the user's"


def test_blender_gets_our_two_packages_and_nothing_that_is_installed_beside_them():
    with blender_modules() as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["blender_addon", "ex4d_core"]
        assert (folder / "blender_addon" / "blender_manifest.toml").is_file()


def test_the_promised_files_are_there(demo):
    names = {path.name for path in demo.iterdir()}
    promised = ["demo.blend", "take_orbit.mp4", "color_orbit.mp4", "mask_orbit.mp4", "camera_orbit.npz"]
    assert {*promised, "contact_sheet.png"} <= names
    for name in ("take_orbit.mp4", "color_orbit.mp4", "mask_orbit.mp4"):
        assert (probe(demo / name).frames, probe(demo / name).fps) == (49, 24)


def test_the_camera_moves_turns_and_zooms(demo):
    camera = CameraPath.load(demo / "camera_orbit.npz")
    assert np.allclose(camera.world_to_camera[0], np.eye(4), atol=1e-5)
    assert np.linalg.norm(camera.camera_to_world[-1, :3, 3]) > 0.5
    assert camera.intrinsics[-1, 0, 0] > 1.2 * camera.intrinsics[0, 0, 0]


def test_frame_0_is_whole_and_the_subject_moves_in_parallax(demo):
    mask = [frame[..., 1] > 125 for frame in read_frames(demo / "mask_orbit.mp4")]
    assert mask[0].all()
    assert 0.3 < mask[-1].mean() < 0.9


def test_the_contact_sheet_is_the_one_in_the_readme(demo):
    """Source, render, mask and result, a row of frames each; looked at when it was committed."""
    sheet, (known,) = read_png(demo / "contact_sheet.png"), read_frames(DATA / "demo")
    assert sheet.shape == known.shape
    assert np.abs(sheet.astype(int) - known).mean() < 3


def test_the_blend_opens_with_mesh_camera_and_strip_by_relative_paths(demo, blender):
    command = [blender, "-c", LOOK_INSIDE, str(demo / "demo.blend")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))[6:])
    assert found["camera"] == "Shot camera" and found["curves"]
    assert found["vertices"] == 514 * 514
    assert found["moved"] > 1e-4
    assert all(path.startswith("//") for path in found["images"] + found["caches"])
    assert found["strips"] == [["MOVIE", "//takes/Orbit_1/take.mp4", 1, 49]]
    assert found["missing"] == []
