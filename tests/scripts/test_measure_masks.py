"""`measure_masks.py` prints the tables of docs/measured/rendering.md, on scenes and on footage."""

from __future__ import annotations

import sys

import pytest

import measure_masks
from ex4d.media import read_png
from ex4d_core.render_settings import OCCLUSION_MODELS
from true_scenes import COMMITTED, DATA, load_committed


def run(monkeypatch, capsys, *options: object) -> list[list[str]]:
    """The cells of the rows that the script prints."""
    monkeypatch.setattr(sys, "argv", ["measure_masks.py", *map(str, options)])
    measure_masks.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_zooms_and_planes_are_seen_whole_and_scenes_have_a_sheet(monkeypatch, capsys, tmp_path) -> None:
    sheet = tmp_path / "sheet.png"
    rows = run(monkeypatch, capsys, "--only", COMMITTED[1], "--depth-error", "exact", "--sheet", sheet)

    zooms = [row for row in rows if row[0] == COMMITTED[1] and len(row) == 5]
    assert len(zooms) == len(OCCLUSION_MODELS)
    assert all(float(cell.split()[0]) > 99.9 for row in zooms for cell in row[2:])
    assert [row[2] for row in rows if row[1] in ("2 to 20", "20 to 60")] == ["100.00 %"] * 2 * len(OCCLUSION_MODELS)
    views = load_committed(COMMITTED[1]).views
    height, width = views[0].visible.shape
    assert read_png(sheet).shape == (len(views) * height, 3 * width, 3)


def test_masks_held_steady_are_nearly_as_true_as_those_of_one_frame(monkeypatch, capsys) -> None:
    rows = run(monkeypatch, capsys, "--only", COMMITTED[1], "--depth-error", "exact", "--steady")

    agreement = {row[2]: float(row[5]) for row in rows[1:]}
    assert agreement["held steady"] >= agreement["cleaned"] - 0.006


def test_footage_has_its_flips_counted(monkeypatch, capsys) -> None:
    folder = DATA / COMMITTED[1]
    rows = run(monkeypatch, capsys, "--footage", folder / "footage.mp4", "--depth", folder / "depth.npz", "--frames", 3)

    assert [row[:2] for row in rows[1:]] == [[m, d] for m in OCCLUSION_MODELS for d in ("as drawn", "cleaned")]
    assert all(0 < float(row[2].split()[0]) < 50 for row in rows[1:])


def test_footage_needs_its_depth(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--footage", "clip.mp4")
