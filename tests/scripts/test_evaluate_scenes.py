"""`evaluate_scenes.py` draws each model's views of true scenes, and prints what `ex4d evaluate` finds of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchmetrics", reason="the extra evaluate has torchmetrics")
import evaluate_scenes
from true_scenes import TrueScene, load_committed, save_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder of one scene with one view, an orbit of 30 degrees."""
    street = load_committed("side_street")
    folder = tmp_path_factory.mktemp("scenes")
    save_scene(replace(street, views=street.views[:1]), folder / "side_street.npz")
    return folder


def rows_of(capsys, *words: str) -> list[list[dict[str, str]]]:
    """The tables that the script prints: the cells of each row by the titles of their columns."""
    evaluate_scenes.main(words)
    tables: list[list[dict[str, str]]] = []
    titles: list[str] = []
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            titles = []
        elif not titles:
            titles = cells
            tables.append([])
        elif not line.startswith("|---"):
            tables[-1].append(dict(zip(titles, cells, strict=True)))
    return tables


def figure(row: dict[str, str], title: str) -> float:
    """Of a row, without its interval."""
    return float(next(cell for name, cell in row.items() if name.startswith(title)).split()[0])


def test_occlusion_models_have_a_row_each(scenes, capsys):
    words = "masks", "--scenes", str(scenes), "--model", "cleaned"
    table, agreement, likeness = rows_of(capsys, *words)
    by_model = {(row["depth"], row["model"]): row for row in table}
    exact = {model: figure(row, "mask IoU") for (depth, model), row in by_model.items() if depth == "exact"}
    assert exact["thickness"] > exact["open"] > exact["watertight"] > 0.5
    for depth in ("blur of 2 px, flicker of 2 %", "noise of 1 %"):
        spoilt = by_model[depth, "thickness"]
        assert figure(spoilt, "mask IoU") < exact["thickness"]
        assert figure(spoilt, "PSNR") < figure(by_model["exact", "thickness"], "PSNR")
    assert [float(row["side_street"]) for row in agreement] == [figure(row, "mask IoU") for row in table]
    assert len(likeness) == len(table)


def test_fillings_are_compared_over_all_holes_and_over_hidden_ones(scenes, capsys):
    tables = rows_of(capsys, "filling", "--scenes", str(scenes))
    for table in (tables[0], tables[3]):
        likeness = {row["filling"]: figure(row, "PSNR, unseen") for row in table}
        assert likeness["preview"] > likeness["colour of the nearest seen pixel"]
    assert tables[0] != tables[3]


def test_clean_up_has_a_row_for_each_step(scenes, capsys):
    table, _ = rows_of(capsys, "depth", "--scenes", str(scenes), "--model", "blur of 2 px, noise")
    assert [row["clean-up"] for row in table] == ["none", "noise filter, edges"]
    spoilt, clean = (figure(row, "mask IoU") for row in table)
    assert clean > spoilt + 0.05


def test_an_unknown_scene_is_refused(capsys):
    with pytest.raises(SystemExit):
        evaluate_scenes.main(["masks", "--only", "moon"])
    assert "'moon'" in capsys.readouterr().err


def test_only_what_was_hidden_is_left_of_holes(scenes):
    scene: TrueScene = evaluate_scenes.load_scene(scenes / "side_street.npz")
    hidden = evaluate_scenes.with_only_hidden(scene)
    for before, after in zip(scene.views, hidden.views, strict=True):
        assert (after.visible | ~before.visible).all()  # what was seen still is
        added = after.visible & ~before.visible
        assert 0 < (~after.visible).mean() < (~before.visible).mean() and np.any(added[:, [0, -1]])
