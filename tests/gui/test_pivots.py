"""Picks the pivot of moves with real clicks, in a Blender with a window; see pivots.py.

`EX4D_BLENDER` names the Blender, as for the walk-through. The pictures stay in the test's folder; inspect them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import build_addon

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample"
BLENDER = os.environ.get("EX4D_BLENDER")
LIMIT_SECONDS = 1800
pytestmark = [
    pytest.mark.gui,
    pytest.mark.skipif(not BLENDER, reason="needs a window: set EX4D_BLENDER to a Blender that can show one"),
]


def test_pivots_are_picked_by_clicks_and_moves_keep_them_in_place(tmp_path):
    faulthandler.cancel_dump_traceback_later()  # Blender draws in software
    scene, pictures = tmp_path / "scene", tmp_path / "pictures"
    command = [sys.executable, "-m", "ex4d", "reconstruct", str(SAMPLE / "footage.mp4"), "--out", str(scene)]
    backend = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT)])}
    subprocess.run([*command, "--depth", str(SAMPLE / "depth.npz"), "--frames", "9"], check=True, env=backend)
    pictures.mkdir()
    artist = {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(tmp_path / "user"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": "",
    }
    zip_file = build_addon.build(ROOT / "blender_addon", tmp_path / "ex4d.zip")
    install = ["--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file)]
    subprocess.run([BLENDER, *install], check=True, env=artist, timeout=LIMIT_SECONDS)
    script = ["--enable-event-simulate", "--python", str(Path(__file__).with_name("pivots.py")), "--"]
    subprocess.run([BLENDER, *script, str(scene), str(pictures)], check=True, env=artist, timeout=LIMIT_SECONDS)
    result = json.loads((pictures / "report.json").read_text())
    assert result["outcome"] == "success", result["outcome"]
    for name in result["pictures"]:
        assert (pictures / name).stat().st_size > 50_000, name
