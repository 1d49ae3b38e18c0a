"""`ex4d clean`: shows and removes what is ours and old, and nothing else."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from ex4d.cli.main import main
from ex4d.service.blob_store import BlobStore
from ex4d.service.folder_lock import locked
from ex4d.service.job_store import JobStore
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest

DAYS = 86_400.0


def put(path: Path, size: int = 1000, age_days: float = 3.0) -> Path:
    """A file of so many bytes, last changed so long ago, and its folder with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - age_days * DAYS
    for one in (path, path.parent):
        os.utime(one, (then, then))
    return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Folders of one machine; nothing of the real one is looked at."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path / "warp"))
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path / "models"))
    for name in ("tmp", "warp", "models"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def clean(machine, capsys):
    def run(*words: str, code: int = 0) -> dict:
        assert main(["clean", "--data", str(machine / "data"), "--json", *words]) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def ours(machine) -> list[Path]:
    """What clean may remove: 1000 bytes each."""
    download = "models/depth-anything/Small/.cache/huggingface/download/model.safetensors.abc.incomplete"
    return [
        put(machine / "warp" / "wp_ex4d.raster.warp.drawing_87d1e9c" / "module.bin"),
        put(machine / download),
        put(machine / "models" / ".converted" / "vae-ab12.safetensors", age_days=0),
        put(machine / "models" / ".converted" / "vae-cd34.safetensors.partial"),
        put(machine / "tmp" / "wp_pch_ab12_x9z" / "header.pch"),
        put(machine / "tmp" / "ex4d-demo-ab12_x9z" / "addon.py"),
        put(machine / "tmp" / "ex4d-ranks-ab12_x9z" / "socket"),
    ]


@pytest.fixture
def others(machine) -> list[Path]:
    """What it must leave: files of others, of the user, in use, or worth keeping."""
    download = machine / "models" / "depth-anything" / "Small"
    return [
        put(machine / "warp" / "wp_somebody.else_87d1e9c" / "module.bin"),
        put(download / "model.safetensors"),
        put(machine / "models" / ".converted" / "vae-ef56.safetensors.partial", age_days=0),
        put(download / ".cache/huggingface/download/config.json.metadata"),
        put(download / ".cache/huggingface/download/now.incomplete", age_days=0),
        put(machine / "tmp" / "ex4d-demo-ab12_now" / "addon.py", age_days=0),
        put(machine / "tmp" / "ex4d-takes" / "take.mp4"),
        put(machine / "tmp" / "ex4d-demo-of-mine" / "take.mp4"),
        put(machine / "tmp" / "wp_pch_notes.txt"),
    ]


def test_it_shows_then_removes_only_what_is_ours_and_old(clean, ours, others):
    shown = clean("--dry-run")["result"]
    assert (shown["removed"], shown["bytes"]) == (False, 7000)
    assert {row["kind"] for row in shown["found"]} == {"kernels", "download", "converted", "temporary"}
    told = clean()
    assert told["result"]["removed"] is False and "--yes" in told["notes"][0], "nobody can answer here"
    assert all(path.exists() for path in (*ours, *others))

    assert clean("--yes")["result"]["removed"] is True
    assert not any(path.exists() for path in ours) and all(path.exists() for path in others)
    assert clean("--yes")["result"]["found"] == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_temporary_folder_is_not_followed(clean, machine):
    kept = put(machine / "elsewhere" / "take.mp4")
    (machine / "tmp" / "ex4d-demo-ab12_x9z").symlink_to(kept.parent)
    assert clean("--yes")["result"]["found"] == []
    assert kept.exists()


def test_old_jobs_and_their_files_are_pruned(clean, machine, small_scene):
    data, scene = machine / "data", Scene.open(small_scene.folder)
    data.mkdir()
    camera: CameraPath = scene.source_camera()
    with closing(JobStore(data / "jobs.sqlite")) as store:
        store.submit("done", ShotRequest(scene.digest, camera), [])
        store.finish(store.claim("worker", "cpu"))
        store.submit("waiting", ShotRequest(scene.digest, camera), ["cd" * 32])
        store._db.execute("UPDATE jobs SET updated = ? WHERE key = 'done'", (time.time() - 40 * DAYS,))
    blobs = BlobStore(data)
    unused, needed, recent = (put(blobs.path(name * 32), 500, age) for name, age in (("ab", 40), ("cd", 40), ("ef", 1)))
    partial = put(data / "partial" / ("12" * 32), 250, 40)

    (row,) = clean("--dry-run")["result"]["found"]
    assert (row["kind"], row["jobs"], row["bytes"]) == ("service", 1, 750)
    assert unused.exists() and partial.exists()
    assert clean("--days", "50", "--dry-run")["result"]["found"] == []
    assert clean("--yes")["result"]["removed"] is True
    assert not unused.exists() and not partial.exists() and needed.exists() and recent.exists()
    with closing(JobStore(data / "jobs.sqlite")) as store:
        (left,) = store.jobs()
        assert left.state == "queued"


def test_it_refuses_while_a_service_uses_the_data_folder(clean, machine, ours):
    with locked(machine / "data"):
        assert f"process {os.getpid()}) uses the data folder" in clean("--yes", code=1)["error"]
    assert all(path.exists() for path in ours)
    assert clean("--yes")["result"]["removed"] is True


def test_a_machine_without_anything_of_ours_stays_without(clean, machine):
    (machine / "warp").rmdir()
    assert clean("--yes")["result"] == {"found": [], "bytes": 0, "removed": False}
    assert not (machine / "data").exists() and not (machine / "warp").exists()
