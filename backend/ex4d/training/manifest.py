"""`DatasetManifest`: what a finished data set holds and how it was made, in its file ``dataset.json``."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ex4d.training.errors import TrainingDataError
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import RequestError
from ex4d_core.schema import Range, Settings, decode

MANIFEST = "dataset.json"
FORMAT = 1

_SHARD_NAME = re.compile(r"samples-[0-9]{5,}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardRecord(Settings):
    """One finished shard.

    Attributes:
        name: of its file, beside the manifest.
        keys: of its samples, in their order.
        bytes: of the file.
        sha256: of the file.
    """

    name: str
    keys: tuple[str, ...]
    bytes: Annotated[int, Range(0)]
    sha256: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _SHARD_NAME.fullmatch(self.name):
            raise RequestError(f"invalid shard name {self.name!r:.80}: expected samples-NNNNN.tar")
        if not _SHA256.fullmatch(self.sha256):
            raise RequestError(f"invalid sha256 {self.sha256!r:.80} of {self.name}: expected 64 hexadecimal digits")


@dataclass(frozen=True)
class DatasetManifest(Settings):
    """What a data set holds and how it was made.

    Attributes:
        format: of the samples and of this file.
        shards: in the order of their numbers; each sample is in exactly one of them.
        shapes: of every sample's tensors, by name; see `TrainingSample`.
        dtype: of the tensors: "bfloat16", "float16" or "float32".
        settings: that it was built with, as plain values.
        versions: of the software, and which weights encoded it.
        counts: clips, cuts, samples, and what was dropped, by reason.
        unseen: the distribution of the unseen share over the angle; see `training.unseen_share`.
    """

    format: int
    shards: tuple[ShardRecord, ...]
    shapes: dict[str, tuple[int, ...]]
    dtype: str
    settings: dict[str, Any]
    versions: dict[str, str]
    counts: dict[str, int]
    unseen: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format != FORMAT:
            raise RequestError(f"format {self.format} of the data set is not {FORMAT}, which this version reads")
        seen: set[str] = set()
        for shard in self.shards:
            if doubled := seen.intersection(shard.keys):
                raise RequestError(f"sample {min(doubled)!r} is in two shards, {shard.name} and one before")
            seen.update(shard.keys)

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(shard.keys) for shard in self.shards)

    @property
    def identity(self) -> str:
        """A hash of all samples: a training run that is resumed must find the same one."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the file, completely or not at all."""
        partial = folder / f"{MANIFEST}.partial"
        try:
            partial.write_text(json.dumps(self.to_wire(), indent=1, ensure_ascii=False), encoding="utf-8")
            put_in_place(partial, folder / MANIFEST)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def from_json(text: bytes | str, place: str) -> DatasetManifest:
        """Read what `save` wrote.

        Args:
            place: where it comes from, for errors.

        Raises:
            TrainingDataError: it is no manifest, or of another format.
        """
        try:
            return decode(DatasetManifest, json.loads(text))
        except (ValueError, RecursionError) as error:
            raise TrainingDataError(f"{place} is no manifest of a data set: {error}") from error
