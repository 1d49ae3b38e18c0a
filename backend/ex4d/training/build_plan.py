"""`BuildPlan`: which window of which clip becomes which sample of which shard, decided before anything is encoded.

The plan is a file of the data set's folder and never changes, so that a build that was ended in any way continues with
the shards that are missing, and no sample is lost or made twice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ex4d.devices import cpu_cores
from ex4d.training.clip_list import Clip
from ex4d.training.clip_scan import ClipScan, scan_clip
from ex4d.training.dataset_settings import DatasetSettings, differences
from ex4d.training.errors import TrainingDataError
from ex4d.training.manifest import FORMAT
from ex4d_core.durable_files import put_in_place
from ex4d_core.schema import Settings, decode

PLAN = "build.json"
# Decoding uses cores, and more clips at once only more memory.
_SCANS_AT_ONCE = 8


@dataclass(frozen=True)
class PlannedWindow(Settings):
    """A window that becomes samples.

    Attributes:
        clip: number of the clip.
        start: its first frame.
    """

    clip: int
    start: int


@dataclass(frozen=True)
class BuildPlan(Settings):
    """All decisions of a build that do not depend on depth and masks.

    Attributes:
        format: of the plan and of the samples.
        settings: of the data set.
        clips: in order.
        shards: windows of each shard, by clip and start; each becomes `DatasetSettings.masks` samples.
        counts: clips, cuts, windows, and what was dropped, by reason.
        problems: of clips that cannot be read, for people.
    """

    format: int
    settings: DatasetSettings
    clips: tuple[Clip, ...]
    shards: tuple[tuple[PlannedWindow, ...], ...]
    counts: dict[str, int]
    problems: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """How many there will be, unless some are dropped."""
        return self.settings.masks * sum(map(len, self.shards))

    def key(self, shard: int, place: int, mask: int) -> str:
        """The key of a sample: its shard, the window's place in it, and the number of the mask."""
        return f"{shard:05d}-{place:04d}-{mask:02d}"

    def save(self, folder: Path) -> None:
        """Write the plan, completely or not at all."""
        partial = folder / f"{PLAN}.partial"
        try:
            partial.write_text(json.dumps(self.to_wire(), ensure_ascii=False), encoding="utf-8")
            put_in_place(partial, folder / PLAN)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def load(folder: Path) -> BuildPlan | None:
        """The plan of a folder; None if none was made there.

        Raises:
            TrainingDataError: it cannot be read.
        """
        path = folder / PLAN
        if not path.exists():
            return None
        try:
            return decode(BuildPlan, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise TrainingDataError(f"{path} cannot be read: {error}; build into a new folder") from error

    def require_same(self, settings: DatasetSettings, clips: Sequence[Clip], folder: Path) -> None:
        """Check that a build is continued with what it was begun with.

        Raises:
            TrainingDataError: says what has changed.
        """
        changed = differences(self.settings.to_wire(), settings.to_wire())
        before, now = ({clip.footage: clip.to_wire() for clip in some} for some in (self.clips, clips))
        changed += [f"{name} is new" for name in now if name not in before]
        changed += [f"{name} is gone" for name in before if name not in now]
        changed += differences(
            {name: clip for name, clip in before.items() if name in now},
            {name: clip for name, clip in now.items() if name in before},
        )
        if not changed and self.format != FORMAT:
            changed = [f"it has format {self.format}, and this version makes {FORMAT}"]
        if changed:
            shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if changed[5:] else "")
            raise TrainingDataError(
                f"{folder} was begun with something else: {shown}. Continue it as it was begun, or choose a new folder"
            )


def make_plan(
    clips: Sequence[Clip], settings: DatasetSettings, progress: Callable[[int, int], None] = lambda done, total: None
) -> BuildPlan:
    """Scan all clips and assign their windows to shards, at random by the seed, so that a shard has many clips.

    Raises:
        TrainingDataError: no clip has a window that can be used.
    """
    scans: list[ClipScan] = []
    with ThreadPoolExecutor(min(_SCANS_AT_ONCE, cpu_cores())) as pool:
        for scan in pool.map(lambda clip: scan_clip(Path(clip.footage), settings), clips):
            scans.append(scan)
            progress(len(scans), len(clips))
    dropped: Counter[str] = Counter()
    for scan in scans:
        dropped.update(scan.dropped or {})
    windows = [PlannedWindow(number, start) for number, scan in enumerate(scans) for start in scan.starts]
    problems = tuple(scan.problem for scan in scans if scan.problem)
    if not windows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        first = f" The first problem: {problems[0]}" if problems else ""
        raise TrainingDataError(
            f"none of {len(clips)} clips has {settings.frames} frames without a cut in which something moves "
            f"({reasons}): choose fewer --frames, or other clips.{first}"
        )
    random.Random(settings.seed).shuffle(windows)
    size = max(1, settings.shard_samples // settings.masks)
    # Clip after clip inside of a shard, so that each is opened once.
    shards = tuple(
        tuple(sorted(windows[start : start + size], key=lambda one: (one.clip, one.start)))
        for start in range(0, len(windows), size)
    )
    counts = {
        "clips": len(clips),
        "frames": sum(scan.frames for scan in scans),
        "cuts": sum(scan.cuts for scan in scans),
        "windows": len(windows),
        **dropped,
    }
    return BuildPlan(FORMAT, settings, tuple(clips), shards, counts, problems)
