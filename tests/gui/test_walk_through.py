"""The five-minute walk-through in a Blender with a window: install the zip as an artist does, and press the buttons.

`EX4D_BLENDER` names the Blender (a program that takes Blender's arguments and shows its window on a real or virtual
screen). The screenshots stay in the test's folder; inspect them: is the next step obvious, is anything cut off?
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import build_addon

ROOT = Path(__file__).resolve().parents[2]
BACKEND_PATH = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
BLENDER = os.environ.get("EX4D_BLENDER")
# For a Blender that draws in software on a busy machine; on an idle one the test takes a minute.
LIMIT_SECONDS = 3600
ADDON = "bl_ext.user_default.ex4d"
pytestmark = [
    pytest.mark.gui,
    pytest.mark.skipif(not BLENDER, reason="needs a window: set EX4D_BLENDER to a Blender that can show one"),
]


@pytest.fixture(autouse=True)
def own_time_limit():
    """Lift the limit that pytest's ``faulthandler_timeout`` sets for each test."""
    faulthandler.cancel_dump_traceback_later()


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture
def scene_package(tmp_path) -> Path:
    folder = tmp_path / "scene"
    command = [sys.executable, str(ROOT / "tests" / "blender" / "write_scene.py"), str(folder), "25", "256", "192"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": BACKEND_PATH})
    return folder


@pytest.fixture
def backend(tmp_path):
    address = free_address()
    command = [sys.executable, "-m", "ex4d", "serve", "--address", address, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")], env={**os.environ, "PYTHONPATH": BACKEND_PATH}
    )
    yield address
    process.terminate()
    process.wait(120)


def test_from_footage_to_two_versions_in_the_sequencer(tmp_path, backend, scene_package):
    # A package has what an artist starts with: a movie and its depth.
    package = Path(os.environ.get("EX4D_SCENE") or scene_package)
    zip_file = build_addon.build(ROOT / "blender_addon", tmp_path / "ex4d.zip")
    variables = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "user"), "PYTHONPATH": ""}
    install = ["--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file)]
    subprocess.run([BLENDER, *install], check=True, env=variables, timeout=LIMIT_SECONDS)
    screenshots = tmp_path / "screenshots"
    screenshots.mkdir()
    footage, depth = (shutil.copy(package / name, screenshots) for name in ("footage.mp4", "depth.npy"))
    script = str(Path(__file__).with_name("walk_through.py"))

    subprocess.run(
        [
            *(BLENDER, "--python", script, "--", ADDON, backend),
            *(str(footage), str(depth), str(screenshots)),
        ],
        check=True,
        env=variables,
        timeout=LIMIT_SECONDS,
    )

    result = json.loads((screenshots / "result.json").read_text())
    assert result["outcome"] == "success", result["outcome"]
    assert result["reconstruction"] == ["imported", ""]
    unseen = result["unseen"]
    # The panel shows the colour itself, and the walls of the frustum touch the edge of the source camera's view.
    assert unseen["source"] < 0.004 < 0.01 < unseen["SOLID"], unseen
    for view in ("MATERIAL", "RENDERED"):
        assert unseen[view] == pytest.approx(unseen["SOLID"], rel=0.1), unseen
    assert [take[2:] for take in result["takes"]] == [["done", ""], ["done", ""]]
    names = ("1_connected", "2_footage", "3_scene", "4_camera", "6_running", "7_takes")
    assert result["screenshots"] == [f"{name}.png" for name in names]
    # A screenshot of an empty window has a few thousand bytes, whatever its size.
    assert all((screenshots / name).stat().st_size > 100_000 for name in result["screenshots"])
