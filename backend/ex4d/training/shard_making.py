"""Makes one shard of a planned data set: reads its windows, simulates masks, encodes, writes.

A shard is finished when its record lies beside it: the record is written after the shard is on disk. Until then it is
made again, from the same plan and seeds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ex4d.depth import DepthError, DepthEstimator
from ex4d.machine import MachineSettings
from ex4d.media import MediaError
from ex4d.mesh.surface import MeshDepthError
from ex4d.pipeline.footage_depth import estimator_of
from ex4d.raster import Rasterizer, create_rasterizer
from ex4d.training.build_plan import BuildPlan, PlannedWindow
from ex4d.training.clip_reader import ClipReader, ReadWindow
from ex4d.training.errors import TrainingDataError
from ex4d.training.frozen_encoders import FrozenEncoders
from ex4d.training.manifest import ShardRecord
from ex4d.training.samples import SampleOrigin, TrainingSample
from ex4d.training.shards import shard_name, write_shard
from ex4d.training.simulated_masks import UNUSABLE_MASK_ERRORS, simulate_mask
from ex4d_core.cameras import CameraError
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import RequestError, full_disk_error
from ex4d_core.plain_text import plain_line
from ex4d_core.schema import Settings, decode

BROKEN, NO_MASK = "windows that cannot be read", "masks outside of the unseen share's limits"
UNUSABLE_MASK = "masks that cannot be used"
# Errors of one window, which do not end the build. Those of weights, devices and disks do.
_OF_A_WINDOW = (MediaError, DepthError, MeshDepthError, CameraError, RequestError)


@dataclass(frozen=True)
class MaskFacts(Settings):
    """What the manifest counts of a sample's mask: its kind, angle in degrees and mean unseen share."""

    kind: str
    angle: float
    unseen: float


@dataclass(frozen=True)
class FinishedShard(Settings):
    """The record of a finished shard.

    Attributes:
        shard: of the manifest.
        masks: of its samples, in their order.
        dropped: planned samples that it lacks, by reason.
        problems: why, for people; the first few.
        shapes, dtype: of its samples; empty if it has none.
        encoders: identity of the weights that encoded it.
        depth_sources: what provided the depth of how many windows.
    """

    shard: ShardRecord
    masks: tuple[MaskFacts, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtype: str = ""
    encoders: str = ""
    depth_sources: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path, number: int) -> FinishedShard | None:
        """The record of a shard that is finished, with its file whole; None if it is to be made."""
        path = folder / record_name(number)
        try:
            record = decode(FinishedShard, json.loads(path.read_text(encoding="utf-8")))
            size = (folder / record.shard.name).stat().st_size
        except (OSError, ValueError, RecursionError):
            return None
        return record if size == record.shard.bytes else None

    def save(self, folder: Path, number: int) -> None:
        """Write the record, completely or not at all."""
        path = folder / record_name(number)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(self.to_wire(), ensure_ascii=False), encoding="utf-8")
            put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def record_name(number: int) -> str:
    """The file name of a shard's record."""
    return Path(shard_name(number)).with_suffix(".json").name


class ShardMaker:
    """Makes shards on one device; networks stay loaded from one shard to the next."""

    def __init__(self, plan: BuildPlan, folder: Path, device: str, machine: MachineSettings):
        self._plan, self._folder, self._device, self._machine = plan, folder, device, machine
        self.encoders = FrozenEncoders(device, plan.settings.precision, machine)
        self._rasterizer: Rasterizer = create_rasterizer("warp", device, machine=machine)

    @cached_property
    def _estimator(self) -> DepthEstimator:
        return estimator_of(self._plan.settings.depth, self._device, self._machine)

    def make(self, number: int, progress: Callable[[int], None], still_wanted: Callable[[], bool]) -> FinishedShard:
        """Make a shard and its record.

        Args:
            progress: called with the planned samples that are done.
            still_wanted: asked before files get their names.

        Raises:
            TrainingDataError: it is no longer wanted.
            OSError: it cannot be written, such as on a full disk.
        """
        work = _ShardWork()
        samples = self._samples(number, work, progress)
        path = self._folder / shard_name(number)

        def wanted() -> Iterator[TrainingSample]:
            yield from samples
            if not still_wanted():
                raise TrainingDataError(f"the build that wanted {path.name} has ended")

        record = FinishedShard(
            write_shard(path, wanted()),
            tuple(work.masks),
            dict(work.dropped),
            tuple(work.problems[:5]),
            work.shapes,
            work.dtype,
            self.encoders.identity,
            dict(work.depth_sources),
        )
        record.save(self._folder, number)
        return record

    def _samples(self, number: int, work: _ShardWork, progress: Callable[[int], None]) -> Iterator[TrainingSample]:
        plan, reader, clip = self._plan, None, -1
        for place, window in enumerate(plan.shards[number]):
            try:
                if reader is None or window.clip != clip:
                    reader, clip = None, window.clip
                    reader = ClipReader(plan.clips[clip], plan.settings.size, lambda: self._estimator)
                read = reader.read(window.start, plan.settings.frames)
                read.surface.depth_range  # noqa: B018 - checks the depth
            except _OF_A_WINDOW as error:
                if full_disk_error(error):
                    raise
                reader = None
                work.drop(BROKEN, plan.settings.masks, f"{plan.clips[window.clip].footage}: {error}")
                progress((place + 1) * plan.settings.masks)
                continue
            work.depth_sources[read.depth_source] += 1
            for mask in range(plan.settings.masks):
                sample = None
                try:
                    sample = self._sample(plan.key(number, place, mask), window, read, work)
                except UNUSABLE_MASK_ERRORS as error:
                    where = f"{plan.clips[window.clip].footage} from frame {window.start}"
                    work.drop(UNUSABLE_MASK, 1, f"{where}: {error}")
                if sample is not None:
                    yield sample
                progress(place * plan.settings.masks + mask + 1)

    def _sample(self, key: str, window: PlannedWindow, read: ReadWindow, work: _ShardWork) -> TrainingSample | None:
        settings, clip = self._plan.settings, self._plan.clips[window.clip]
        seed = _seed_of(settings.seed, key)
        surface = read.surface.to(self._rasterizer.device)
        parts = settings.moves, settings.regions, settings.tracked, seed, self._rasterizer
        mask = simulate_mask(surface, *parts, camera_known=read.camera_known)
        if mask is None:
            work.drop(NO_MASK, 1, "")
            return None
        width, height = settings.size
        origin = SampleOrigin(
            key,
            settings.frames,
            width,
            height,
            mask=mask.kind,
            clip=Path(clip.footage).name,
            first_frame=window.start,
            caption=clip.caption,
            angle=mask.angle,
            move=mask.words,
            seed=seed,
        )
        sample = self.encoders.encode(origin, read.frames, mask.seen.cpu().numpy(), settings.wan(seed % 2**31))
        work.masks.append(MaskFacts(mask.kind, mask.angle, sample.origin.unseen))
        work.shapes, work.dtype = sample.shapes, str(sample.target_latents.dtype).removeprefix("torch.")
        return sample


def _seed_of(seed: int, key: str) -> int:
    """A seed for one sample, which another sample or another data set's seed does not share."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:7], "big")


class _ShardWork:
    """What a shard's record says, while it is being made."""

    def __init__(self) -> None:
        self.masks: list[MaskFacts] = []
        self.dropped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.shapes: dict[str, Any] = {}
        self.dtype = ""
        self.depth_sources: Counter[str] = Counter()

    def drop(self, reason: str, count: int, problem: str) -> None:
        self.dropped[reason] += count
        if problem:
            self.problems.append(plain_line(problem))
