"""An artist's first hour in a Blender with a window: install the zip, press the buttons, save, reopen, reinstall.

`EX4D_BLENDER` names the Blender (a program that takes Blender's arguments and shows its window on a real or virtual
screen). The pictures stay in the test's folder; inspect them: is the next step obvious, is anything cut off?
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
from typing import Any

import pytest

import build_addon

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample"
BACKEND_PATH = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
BLENDER = os.environ.get("EX4D_BLENDER")
# For a Blender that draws in software on a busy machine; on an idle one the test takes a few minutes.
LIMIT_SECONDS = 3600
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
def backend(tmp_path, monkeypatch):
    # Beside the rest, for a Blender that does not see the system's temporary folder.
    monkeypatch.setenv("EX4D_TOKENS", str(tmp_path / "tokens"))
    address = free_address()
    command = [sys.executable, "-m", "ex4d", "serve", "--address", address, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")], env={**os.environ, "PYTHONPATH": BACKEND_PATH}
    )
    yield address
    process.terminate()
    process.wait(120)


@pytest.fixture
def artist(tmp_path, backend) -> dict[str, str]:
    """The environment of an artist who has used neither Blender nor the add-on before."""
    for name in ("clip", "documents", "project", "pictures", "config"):
        (tmp_path / name).mkdir()
    shutil.copy(SAMPLE / "footage.mp4", tmp_path / "clip" / "garden.mp4")
    shutil.copy(SAMPLE / "depth.npz", tmp_path / "clip" / "garden_depth.npz")
    (tmp_path / "config" / "user-dirs.dirs").write_text(f'XDG_DOCUMENTS_DIR="{tmp_path / "documents"}"\n')
    return {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(tmp_path / "user"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": "",
    }


def test_first_hour_and_everything_still_there(tmp_path, backend, artist):
    zip_file = build_addon.build(ROOT / "blender_addon", tmp_path / "ex4d.zip")
    install = ["--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file)]
    subprocess.run([BLENDER, *install], check=True, env=artist, timeout=LIMIT_SECONDS)
    blend = tmp_path / "project" / "garden.blend"

    def walk(session: str, *files: Path) -> dict[str, Any]:
        script = str(Path(__file__).with_name("walk_through.py"))
        arguments = ["--enable-event-simulate", *map(str, files), "--python", script, "--", session, backend]
        subprocess.run(
            [BLENDER, *arguments, str(tmp_path), str(zip_file)], check=True, env=artist, timeout=LIMIT_SECONDS
        )
        result = json.loads((tmp_path / "pictures" / f"{session}.json").read_text())
        assert result["outcome"] == "success", result["outcome"]
        # A screenshot of an empty window has a few thousand bytes, whatever its size.
        for name in result["pictures"]:
            assert (tmp_path / "pictures" / name).stat().st_size > 50_000, name
        return result

    magenta = walk("first")["magenta"]
    # The panel shows the color itself, and the source camera sees the footage alone. Aside, ghosts bury nothing.
    assert magenta["source"] < 0.004 < 0.01 < magenta["move"], magenta
    assert magenta["aside"] < 0.02, magenta
    assert not any((tmp_path / "documents" / "EX-4D").rglob("*.mp4")), "the files moved beside the .blend"
    walk("reopen", blend)
    walk("again", blend)
