"""The sample's scene in a Blender with a window: pivots that are picked by real clicks, and what counts as unseen.

`EX4D_BLENDER` names the Blender, as for the walk-through. The pictures stay in the test's folder; inspect them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_addon
from ex4d.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample"
BLENDER = os.environ.get("EX4D_BLENDER")
LIMIT_SECONDS = 1800
pytestmark = [
    pytest.mark.gui,
    pytest.mark.skipif(not BLENDER, reason="needs a window: set EX4D_BLENDER to a Blender that can show one"),
]


@pytest.fixture
def scene(tmp_path) -> Path:
    faulthandler.cancel_dump_traceback_later()  # Blender draws in software
    clip = [str(SAMPLE / "footage.mp4"), "--depth", str(SAMPLE / "depth.npz"), "--frames", "9"]
    assert main(["reconstruct", *clip, "--out", str(tmp_path / "scene")]) == 0
    return tmp_path / "scene"


@pytest.fixture
def artist(tmp_path) -> dict[str, str]:
    """The environment of an artist who has installed the add-on."""
    folders = {"BLENDER_USER_RESOURCES": str(tmp_path / "user"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment = {**os.environ, **folders, "PYTHONPATH": ""}
    zip_file = build_addon.build(ROOT / "blender_addon", tmp_path / "ex4d.zip")
    install = ["--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file)]
    subprocess.run([BLENDER, *install], check=True, env=environment, timeout=LIMIT_SECONDS)
    return environment


def walk(script: str, scene: Path, artist: dict[str, str]) -> dict[str, Any]:
    """What a script beside this file reports of a walk through the scene."""
    pictures = scene.parent / "pictures"
    pictures.mkdir()
    arguments = ["--enable-event-simulate", "--python", str(Path(__file__).with_name(script)), "--"]
    subprocess.run([BLENDER, *arguments, str(scene), str(pictures)], check=True, env=artist, timeout=LIMIT_SECONDS)
    result = json.loads((pictures / "report.json").read_text())
    assert result["outcome"] == "success", result["outcome"]
    for name in result["pictures"]:
        assert (pictures / name).stat().st_size > 50_000, name
    return result


def test_pivots_are_picked_by_clicks_and_moves_keep_them_in_place(scene, artist):
    walk("pivots.py", scene, artist)


def test_what_a_camera_shows_as_unseen_is_what_a_render_leaves_unseen(scene, artist, tmp_path):
    unseen = {}
    for occlusion in ("watertight", "thickness", "open"):
        out = tmp_path / f"{occlusion}.npz"
        assert main(["render", str(scene), "--preset", "orbit", "--occlusion", occlusion, "--out", str(out)]) == 0
        with np.load(out) as rendered:
            unseen[occlusion] = 1.0 - rendered["coverage"][-1]
    unseen["auto"] = unseen["thickness"]
    expected = {f"{occlusion}, memory on": share for occlusion, share in unseen.items()}
    expected["thickness, memory off"] = unseen["thickness"]
    shown = walk("unseen.py", scene, artist)
    print(expected, shown["unseen"], shown["remembered"])
    others = shown["unseen"].keys() - expected.keys()
    assert len(others) == 3, "Material Preview, and Rendered view with EEVEE and Cycles"
    assert shown["unseen"] == pytest.approx({**expected, **dict.fromkeys(others, unseen["auto"])}, abs=0.03)
    for name in others:
        assert shown["remembered"][name] == pytest.approx(shown["remembered"]["auto, memory on"], abs=0.02), name
    assert shown["remembered"]["thickness, memory off"] == 0.0 < shown["remembered"]["thickness, memory on"]
