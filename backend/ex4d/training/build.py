"""`build_dataset`: footage to a finished data set: plan, shards over all devices, manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filelock

from ex4d.generation.wan.conditioning import LATENT_FRAMES, latent_count
from ex4d.generation.wan.encoders import MAX_TOKENS
from ex4d.machine import MachineSettings
from ex4d.pipeline.disk_room import require_room
from ex4d.progress import Progress, ignore_progress
from ex4d.training.build_plan import PLAN, BuildPlan, make_plan
from ex4d.training.build_pool import make_shards
from ex4d.training.clip_list import Clip, list_clips
from ex4d.training.dataset_settings import DatasetSettings
from ex4d.training.errors import TrainingDataError
from ex4d.training.frozen_encoders import FrozenEncoders
from ex4d.training.manifest import FORMAT, MANIFEST, DatasetManifest
from ex4d.training.shard_making import FinishedShard
from ex4d.training.shards import Dataset, require_webdataset
from ex4d.training.unseen_share import unseen_distribution
from ex4d_core import __version__
from ex4d_core.durable_files import make_folder

SCAN_STAGE, ENCODE_STAGE = "scan", "samples"
_LOCK = ".ex4d-dataset.lock"
_PACKAGES = ("torch", "diffsynth", "webdataset", "warp-lang")
# Channels of a sample's latents, and numbers of its CLIP features and of a token's text features: an estimate of size.
_CHANNELS, _CLIP_NUMBERS, _TEXT_NUMBERS = 16 + 32 + LATENT_FRAMES + 16, 257 * 1280, 4096


def build_dataset(
    source: Path,
    folder: Path,
    settings: DatasetSettings,
    *,
    devices: Sequence[str] = ("auto",),
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Build a data set, or continue one that was begun with the same settings and clips.

    Args:
        source: a folder of clips, or a CSV file; see `ex4d.training.clip_list.list_clips`.
        folder: of the data set.
        devices: one worker process for each; "auto" is every GPU, or else the processor.
        machine: as the environment says by default.
        progress: called with the stages `SCAN_STAGE`, in clips, and `ENCODE_STAGE`, in samples that were still missing.
        note: called with sentences for the user about clips and windows that were dropped.

    Raises:
        TrainingDataError: the clips or the folder cannot be used, the settings differ from those that it was begun
            with, another build works there, no sample could be made, or a worker failed; finished shards stay.
        PromptError: a caption is too long.
        WeightsMissingError, CheckpointError, LicenceError, DeviceError, WanUnavailableError: see `FrozenEncoders`.
        DiskRoomError: the disk has no room for the data set.
    """
    require_webdataset()
    machine = machine or MachineSettings.from_environment()
    names = worker_devices(devices)
    clips = list_clips(source, settings.prompt)
    _require_own(folder)
    # Problems of weights and captions are found before any clip is read.
    encoders = FrozenEncoders(names[0], settings.precision, machine)
    encoders.require_short(list(dict.fromkeys(clip.caption for clip in clips)))
    make_folder(folder)
    with _only_one(folder):
        plan = _plan_of(folder, clips, settings, progress)
        for problem in plan.problems[:5]:
            note(problem)
        _remove_partials(folder)
        finished = {number: FinishedShard.load(folder, number) for number in range(len(plan.shards))}
        missing = [number for number, shard in finished.items() if shard is None]
        _require_same_encoders(finished, encoders.identity, folder)
        if missing:
            _make_missing(plan, missing, folder, names, machine, progress)
            finished = {number: FinishedShard.load(folder, number) for number in range(len(plan.shards))}
        manifest = _manifest_of(plan, [shard for shard in finished.values() if shard is not None], note)
        manifest.save(folder)
    return Dataset.open(folder)


def worker_devices(devices: Sequence[str]) -> list[str]:
    """A device for each worker: "auto" is every GPU, or else the processor."""
    if list(devices) != ["auto"]:
        return list(devices)
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def sample_bytes(settings: DatasetSettings) -> int:
    """About the bytes of a sample on disk, with a prompt of full length."""
    width, height = settings.size
    latents = _CHANNELS * latent_count(settings.frames) * (height // 8) * (width // 8)
    itemsize = 4 if settings.precision == "float32" else 2
    return itemsize * (latents + _CLIP_NUMBERS + _TEXT_NUMBERS * MAX_TOKENS // 4)


def _plan_of(folder: Path, clips: list[Clip], settings: DatasetSettings, progress: Progress) -> BuildPlan:
    """The plan that was made before, or a new one."""
    plan = BuildPlan.load(folder)
    if plan is not None:
        plan.require_same(settings, clips, folder)
        return plan
    plan = make_plan(clips, settings, lambda done, total: progress(SCAN_STAGE, done, total))
    plan.save(folder)
    return plan


def _make_missing(
    plan: BuildPlan,
    missing: list[int],
    folder: Path,
    devices: list[str],
    machine: MachineSettings,
    progress: Progress,
) -> None:
    sizes = {number: plan.settings.masks * len(plan.shards[number]) for number in missing}
    total, made = sum(sizes.values()), 0
    require_room(folder, total * sample_bytes(plan.settings), f"a data set of {total} more samples")
    progress(ENCODE_STAGE, 0, total)

    def on_made(number: int) -> None:
        nonlocal made
        made += sizes[number]
        progress(ENCODE_STAGE, made, total)

    make_shards(missing, folder, devices, machine, lambda done: progress(ENCODE_STAGE, made + done, total), on_made)


def _manifest_of(plan: BuildPlan, shards: list[FinishedShard], note: Callable[[str], None]) -> DatasetManifest:
    filled = [shard for shard in shards if shard.masks]
    problems = [problem for shard in shards for problem in shard.problems]
    for problem in problems[:5]:
        note(problem)
    dropped: Counter[str] = Counter()
    for shard in shards:
        dropped.update(shard.dropped)
    if not filled:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        first = f" The first problem: {problems[0]}" if problems else ""
        raise TrainingDataError(f"none of {plan.samples} planned samples could be made: {reasons}.{first}")
    masks = [mask for shard in filled for mask in shard.masks]
    sources: Counter[str] = Counter()
    for shard in filled:
        sources.update(shard.depth_sources)
    kinds = Counter(mask.kind for mask in masks)
    versions = {"ex4d": __version__, "encoders": filled[0].encoders, "depth": ", ".join(sorted(sources))}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return DatasetManifest(
        FORMAT,
        tuple(shard.shard for shard in filled),
        filled[0].shapes,
        filled[0].dtype,
        plan.settings.to_wire(),
        versions,
        {**plan.counts, "samples": len(masks), **{f"{kind} masks": count for kind, count in kinds.items()}, **dropped},
        unseen_distribution((mask.kind, mask.angle, mask.unseen) for mask in masks),
    )


def _require_same_encoders(finished: dict[int, FinishedShard | None], identity: str, folder: Path) -> None:
    if any(shard is not None and shard.encoders not in ("", identity) for shard in finished.values()):
        raise TrainingDataError(
            f"{folder} was begun with other weights of the encoders than are here now: continue it with those, or "
            "choose a new folder"
        )


def _require_own(folder: Path) -> None:
    """Check that a folder is new, empty, or holds a data set."""
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not any((folder / name).exists() for name in (_LOCK, PLAN, MANIFEST))
    ):
        raise TrainingDataError(f"{folder} holds something else than a data set: choose an empty folder")
    if folder.exists() and not folder.is_dir():
        raise TrainingDataError(f"{folder} is a file: name a folder for the data set")


def _remove_partials(folder: Path) -> None:
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def _only_one(folder: Path):
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise TrainingDataError(f"another build works in {folder}: wait for it, or choose another folder") from error
    with lock:
        yield
