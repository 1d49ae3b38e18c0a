"""Builds of data sets: samples are what generation encodes, and any end of the build loses and doubles nothing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("webdataset", reason="training data need the extra train")
from ex4d.generation.wan.decoding import encode_video
from ex4d.generation.wan.errors import PromptError
from ex4d.machine import MachineSettings
from ex4d.media import read_frames
from ex4d.training import shard_making, shards
from ex4d.training.build import build_dataset, sample_bytes
from ex4d.training.build_plan import BuildPlan, make_plan
from ex4d.training.clip_list import list_clips
from ex4d.training.dataset_settings import DatasetSettings
from ex4d.training.errors import TrainingDataError
from ex4d.training.manifest import MANIFEST
from ex4d.training.shard_making import BROKEN, UNUSABLE_MASK, FinishedShard, ShardMaker, record_name
from ex4d.training.shards import Dataset, shard_name
from ex4d_core.cameras import CameraError
from ex4d_core.errors import is_expected
from tests.conftest import DATA

SAMPLE = DATA / "sample"
SMALL = DatasetSettings(
    frames=5, size=(48, 32), windows=6, shard_samples=2, precision="float32", erosion=(0, 2), tracked=0.4
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """The sample clip with its depth, in a CSV file."""
    folder = tmp_path_factory.mktemp("footage")
    shutil.copy(SAMPLE / "footage.mp4", folder / "garden.mp4")
    shutil.copy(SAMPLE / "depth.npz", folder / "depth.npz")
    (folder / "list.csv").write_text("clip,caption,depth,camera\ngarden.mp4,a wide street,depth.npz,still\n")
    return folder / "list.csv"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    """Of workers: toy networks are too small for several."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def machine(toy_models) -> MachineSettings:
    return MachineSettings(models=toy_models)


@pytest.fixture
def planned(clips, tmp_path) -> BuildPlan:
    """A plan of three shards of two samples, in its folder."""
    folder = tmp_path / "set"
    folder.mkdir()
    plan = make_plan(list_clips(clips, ""), SMALL)
    plan.save(folder)
    return plan


def make_all(plan: BuildPlan, folder: Path, machine: MachineSettings) -> list[FinishedShard]:
    maker = ShardMaker(plan, folder, "cpu", machine)
    return [maker.make(number, lambda done: None, lambda: True) for number in range(len(plan.shards))]


def test_samples_are_what_generation_encodes_of_the_source_frames(planned, tmp_path, machine):
    folder = tmp_path / "set"
    made = make_all(planned, folder, machine)
    assert [len(one.shard.keys) for one in made] == [2, 2, 2]
    samples = [sample for one in made for sample in shards.read_shard(str(folder / one.shard.name), one.shard)]
    assert {sample.origin.mask for sample in samples} == {"rendered", "tracked"}
    sample, window = samples[0], planned.shards[0][0]
    assert sample.shapes["target_latents"] == (16, 2, 4, 6) and sample.shapes["prompt_embeds"][0] == 512
    frames = np.stack(list(read_frames(SAMPLE / "footage.mp4", window.start, 5)))
    maker = ShardMaker(planned, folder, "cpu", machine)
    framed = np.stack([_framed(frame) for frame in frames])
    networks = maker.encoders._networks
    with torch.inference_mode():
        video = torch.from_numpy(framed).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents = encode_video(networks.vae, video, "cpu")[0]
        text = networks.text_embeddings([("a wide street", "prompt")])[0][0]
    torch.testing.assert_close(sample.target_latents, latents)
    assert torch.equal(sample.prompt_embeds, text)
    assert sample.image_latents[:4, 0].eq(1).all() and sample.image_latents[:4, 1].eq(0).all()
    assert 0 < sample.origin.unseen < 1 and sample.origin.caption == "a wide street"
    assert sum(made[0].depth_sources.values()) == 2


def _framed(frame: np.ndarray) -> np.ndarray:
    from ex4d.training.framing import Framing

    return Framing(frame.shape[1], frame.shape[0], (48, 32)).color(frame)


@contextmanager
def forked_build(clips: Path, folder: Path, machine: MachineSettings) -> Iterator[psutil.Process]:
    """A build in a process of its own, which is killed at the end; forked, since imports take longer than the build."""
    if not (pid := os.fork()):
        try:
            build_dataset(clips, folder, SMALL, devices=["cpu"], machine=machine)
        finally:
            os._exit(0)
    build = psutil.Process(pid)
    try:
        yield build
    finally:
        workers = build.children()
        build.send_signal(signal.SIGKILL)
        os.waitpid(pid, 0)
        psutil.wait_procs(workers)  # they notice that nobody listens


def wait_for(path: Path, build: psutil.Process) -> None:
    while not path.exists():
        assert build.status() != psutil.STATUS_ZOMBIE, "the build ended"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_build_that_is_killed_continues_without_a_lost_or_doubled_sample(clips, tmp_path, machine, planned):
    expected = make_all(planned, tmp_path / "set", machine)
    folder = tmp_path / "killed"
    with forked_build(clips, folder, machine) as build:
        wait_for(folder / record_name(0), build)
    # What a shard that was being written may leave: no record, or half a file.
    (folder / record_name(2)).unlink(missing_ok=True)
    (folder / shard_name(2)).write_bytes(b"half")
    (folder / f"{shard_name(2)}.77.partial").write_bytes(b"half")
    seen: list[tuple[str, int, int]] = []
    dataset = build_dataset(
        clips, folder, SMALL, devices=["cpu"], machine=machine, progress=lambda *step: seen.append(step)
    )
    assert [shard.sha256 for shard in dataset.manifest.shards] == [one.shard.sha256 for one in expected]
    assert dataset.manifest.samples == dataset.manifest.counts["samples"] == 6
    assert len({sample.key for shard in dataset.manifest.shards for sample in dataset.samples(shard)}) == 6
    assert not list(folder.glob("*.partial"))
    # Only what was missing is made, and counted.
    assert seen[0][0] == "samples" and seen[0][2] < 6 and seen[-1][1:] == (seen[0][2], seen[0][2])
    before = (folder / MANIFEST).read_bytes()
    build_dataset(clips, folder, SMALL, devices=["cpu"], machine=machine)  # finished: nothing is made again
    assert (folder / MANIFEST).read_bytes() == before
    with pytest.raises(TrainingDataError, match="seed was 0 and is 3"):
        build_dataset(clips, folder, replace(SMALL, seed=3), devices=["cpu"], machine=machine)
    assert Dataset.open(folder).manifest.samples == 6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_worker_that_is_killed_is_replaced(clips, tmp_path, machine):
    folder = tmp_path / "set"
    with forked_build(clips, folder, machine) as build:
        wait_for(folder / record_name(0), build)
        [worker] = build.children()
        worker.send_signal(signal.SIGKILL)
        wait_for(folder / MANIFEST, build)
    assert Dataset.open(folder).manifest.samples == 6


def test_windows_that_cannot_be_read_are_dropped_and_counted(planned, tmp_path, machine, clips):
    damaged = tmp_path / "depth.npz"
    with np.load(SAMPLE / "depth.npz") as stored:
        depth = stored["depth"].astype(np.float32)
    depth[planned.shards[0][1].start] = np.nan
    np.savez(damaged, depth=depth)
    plan = replace(planned, clips=(replace(planned.clips[0], depth=str(damaged)),))
    maker = ShardMaker(plan, tmp_path / "set", "cpu", machine)
    made = maker.make(0, lambda done: None, lambda: True)
    assert made.dropped == {BROKEN: 1} and len(made.shard.keys) == 1 and "NaN" in made.problems[0]


def test_a_mask_that_cannot_be_used_is_dropped_and_counted(planned, tmp_path, machine, monkeypatch):
    simulate, errors = shard_making.simulate_mask, [CameraError("the camera looks at its own eye")]

    def once_impossible(*parts, **how):
        if errors:
            raise errors.pop()
        return simulate(*parts, **how)

    monkeypatch.setattr(shard_making, "simulate_mask", once_impossible)
    made = ShardMaker(planned, tmp_path / "set", "cpu", machine).make(0, lambda done: None, lambda: True)
    assert made.dropped == {UNUSABLE_MASK: 1} and len(made.shard.keys) == len(made.masks) == 1
    assert "its own eye" in made.problems[0]


def test_a_full_disk_ends_the_build_and_leaves_finished_shards(planned, tmp_path, machine, monkeypatch):
    folder = tmp_path / "set"
    maker = ShardMaker(planned, folder, "cpu", machine)
    first = maker.make(0, lambda done: None, lambda: True)

    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr("ex4d.training.shards.put_in_place", full)
    with pytest.raises(OSError, match="No space left") as raised:
        maker.make(1, lambda done: None, lambda: True)
    assert is_expected(raised.value)
    assert FinishedShard.load(folder, 0) == first and FinishedShard.load(folder, 1) is None
    assert not list(folder.glob("*.partial")) and not (folder / shard_name(1)).exists()


def test_a_worker_whose_build_has_ended_writes_nothing(planned, tmp_path, machine):
    with pytest.raises(TrainingDataError, match="has ended"):
        ShardMaker(planned, tmp_path / "set", "cpu", machine).make(0, lambda done: None, lambda: False)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["build.json"]


def test_what_keeps_a_build_from_starting_is_said_before_any_work(clips, tmp_path, machine, toy_models):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(TrainingDataError, match="something else"):
        build_dataset(clips, tmp_path / "full", SMALL, devices=["cpu"], machine=machine)
    long = tmp_path / "long.csv"
    long.write_text(f"clip,caption\n{clips.parent / 'garden.mp4'},{'street ' * 600}\n")
    with pytest.raises(PromptError, match="caption has"):
        build_dataset(long, tmp_path / "set", SMALL, devices=["cpu"], machine=machine)
    assert not (tmp_path / "set").exists()


def test_the_size_on_disk_is_estimated(planned, tmp_path, machine):
    [made, *_] = make_all(replace(planned, shards=planned.shards[:1]), tmp_path / "set", machine)
    published = sample_bytes(DatasetSettings())
    assert 8e6 < published < 12e6
    assert made.shard.bytes / 2 < sample_bytes(SMALL)
