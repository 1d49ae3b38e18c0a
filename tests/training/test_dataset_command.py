"""`ex4d dataset`: what it prints and refuses; builds themselves are in test_build.py."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("webdataset", reason="training data need the extra train")
from ex4d.cli.main import main
from ex4d.media import read_png
from ex4d.training import mask_sheet
from ex4d_core.cameras import CameraError
from tests.conftest import DATA
from tests.training.random_samples import random_dataset


def test_check_reads_every_sample_and_names_a_damaged_shard(tmp_path, capsys):
    random_dataset(tmp_path, 2, 1)
    assert main(["dataset", "check", str(tmp_path), "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["shards"] == 2
    shard = tmp_path / "samples-00001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    assert main(["dataset", "check", str(tmp_path)]) == 1
    assert "samples-00001.tar" in capsys.readouterr().err


def test_a_sheet_shows_the_footage_and_both_kinds_of_masks(tmp_path, capsys):
    shutil.copy(DATA / "sample" / "footage.mp4", tmp_path)
    (tmp_path / "list.csv").write_text(f"clip,depth,camera\nfootage.mp4,{DATA / 'sample' / 'depth.npz'},still\n")
    words = ["--frames=5", "--size=64x48", "--rows=1", "--mask-samples=1", "--mask-preset=truck", "--device=cpu"]
    sheet = tmp_path / "sheet.png"
    assert main(["dataset", "sheet", str(tmp_path / "list.csv"), "-o", str(sheet), *words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["result"]["rows"]
    assert [row.partition(":")[0] for row in rows] == ["footage.mp4 from frame 0", "rendered", "tracked"]
    image = read_png(sheet)
    height = (image.shape[0] - 4) // 3
    footage, rendered, tracked = (image[4 + height * row : height * (row + 1)] for row in range(3))
    for masked in (rendered, tracked):
        black = (masked < 8).all(-1) & (footage[: len(masked)] > 40).any(-1)
        assert 0.01 < black.mean() < 0.7


def test_a_sheet_leaves_out_a_mask_that_cannot_be_used(tmp_path, capsys, monkeypatch):
    simulate, errors = mask_sheet.simulate_mask, [CameraError("the camera looks at its own eye")]

    def once_impossible(*parts, **how):
        if errors:
            raise errors.pop()
        return simulate(*parts, **how)

    monkeypatch.setattr(mask_sheet, "simulate_mask", once_impossible)
    shutil.copy(DATA / "sample" / "footage.mp4", tmp_path)
    (tmp_path / "list.csv").write_text(f"clip,depth,camera\nfootage.mp4,{DATA / 'sample' / 'depth.npz'},still\n")
    words = ["--frames=5", "--size=64x48", "--rows=1", "--mask-samples=1", "--mask-preset=truck", "--device=cpu"]
    assert main(["dataset", "sheet", str(tmp_path / "list.csv"), "-o", str(tmp_path / "sheet.png"), *words]) == 0
    output = capsys.readouterr()
    assert "its own eye" in output.err and "tracked:" in output.out and "rendered:" not in output.out


def test_distributions_are_checked_before_any_work(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["dataset", "build", str(tmp_path), "-o", str(tmp_path / "set"), "--unseen", "0.1,1.5"])
    assert "--unseen" in capsys.readouterr().err
    assert main(["dataset", "build", str(tmp_path), "-o", str(tmp_path / "set"), "--size", "100x64"]) == 1
    assert "multiples of 16" in capsys.readouterr().err
    assert main(["dataset", "build", str(tmp_path), "-o", str(tmp_path / "set")]) == 1
    assert "has no clips" in capsys.readouterr().err
