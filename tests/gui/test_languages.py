"""The interface in Italian, in an installed Blender: as a Python module Blender has no languages."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import build_addon

ROOT = Path(__file__).resolve().parents[2]
BLENDER = os.environ.get("EX4D_BLENDER")
LIMIT_SECONDS = 600
pytestmark = [
    pytest.mark.gui,
    pytest.mark.skipif(not BLENDER, reason="needs an installed Blender: set EX4D_BLENDER to it"),
]
ENGLISH = {
    "panel": "Final Settings",
    "project": "Project",
    "operator": "Duplicate Shot",
    "tooltip": "Remove this take from the list; its strip and files stay",
    "message": "/a/b.mp4 does not exist; choose a video",
}
ITALIAN = {
    "panel": "Impostazioni Finali",
    "project": "Progetto",  # not Blender's own "Proiezione"
    "operator": "Duplica Inquadratura",
    "tooltip": "Rimuovi questa ripresa dall'elenco; il suo spezzone e i suoi file restano",
    "message": "/a/b.mp4 non esiste; scegli un video",
}


def test_the_language_of_the_preferences_is_shown_while_the_add_on_is_enabled(tmp_path):
    zip_file = build_addon.build(ROOT / "blender_addon", tmp_path / "ex4d.zip")
    artist = {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(tmp_path / "user"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": "",
    }
    install = ["--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file)]
    subprocess.run([BLENDER, *install], check=True, env=artist, timeout=LIMIT_SECONDS)
    report = tmp_path / "report.json"
    script = ["--background", "--python-exit-code", "1", "--python", str(Path(__file__).with_name("languages.py"))]
    subprocess.run([BLENDER, *script, "--", str(report)], check=True, env=artist, timeout=LIMIT_SECONDS)
    shown = json.loads(report.read_text())
    assert shown["unknown"] == []
    assert shown["en_US"] == ENGLISH
    assert shown["it_IT"] == ITALIAN
    assert shown["disabled"] == ENGLISH
    assert shown["enabled again"] == ITALIAN
    # As Blender's own Persian: the letters of the screen, in its order, with the value as it is.
    message = shown["fa_IR"]["message"]
    assert message.endswith("/a/b.mp4") and any("\ufb50" <= letter <= "\ufefc" for letter in message), message
