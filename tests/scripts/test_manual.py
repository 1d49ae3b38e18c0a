"""The manual inside the add-on: the documentation's page, in pages that open from the disk."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("markdown", reason="needs the project's own environment, .venv/backend")
import write_manual


def test_the_add_ons_manual_is_up_to_date():
    written = write_manual.pages(write_manual.SOURCE.read_text(encoding="utf-8"))
    there = {path.name: path.read_text(encoding="utf-8") for path in write_manual.TARGET.glob("*.html")}
    assert there == written, "run scripts/write_manual.py"


def test_its_links_lead_to_its_own_pages():
    for page in write_manual.TARGET.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src)="([^"]*)"', text):
            assert (write_manual.TARGET / target).is_file(), f"{page.name} leads to {target}"
        assert "<table>" in text or page.name not in ("preferences.html", "shots-and-takes.html")


def test_each_convention_has_a_test_that_exists():
    text = write_manual.SOURCE.read_text(encoding="utf-8").partition("## Conventions")[2]
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 20 and len(set(named)) == len(named)
    for file, test in named:
        path = write_manual.ROOT / (file if "/" in file else f"tests/blender/{file}")
        assert f"def {test}(" in path.read_text(encoding="utf-8"), f"{file} has no {test}"
