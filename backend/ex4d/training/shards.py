"""Shards of a data set (WebDataset tar files of samples), and `Dataset`, which streams them from folder or bucket."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ex4d.installation import install_command
from ex4d.training.errors import SampleError, ShardError, TrainingDataError
from ex4d.training.manifest import MANIFEST, DatasetManifest, ShardRecord
from ex4d.training.samples import TrainingSample
from ex4d_core.durable_files import put_in_place

_ENDING = "safetensors"


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"samples-{number:05d}.tar"


def write_shard(path: Path, samples: Iterable[TrainingSample]) -> ShardRecord:
    """Write samples to a shard, which gets its name when it is complete and on disk.

    The same samples become the same bytes.
    """
    require_webdataset()
    from webdataset.writer import TarWriter

    partial, keys = path.with_name(f"{path.name}.{os.getpid()}.partial"), []
    try:
        plain: dict[str, Any] = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
        with open(partial, "wb") as file, TarWriter(file, **plain) as writer:
            for sample in samples:
                writer.write({"__key__": sample.key, _ENDING: sample.to_bytes()})
                keys.append(sample.key)
        record = record_of(partial, path.name, keys)
        put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return record


def record_of(path: Path, name: str, keys: Iterable[str]) -> ShardRecord:
    """The record of a shard's file, by its content."""
    with open(path, "rb") as file:
        hashing = _Hashing(file)
        hashing.read_rest()
    return ShardRecord(name, tuple(keys), path.stat().st_size, hashing.digest)


def read_shard(place: str, record: ShardRecord) -> Iterator[TrainingSample]:
    """Yield a shard's samples in their order, each checked.

    Args:
        place: path or address of the shard's file.
        record: what the manifest says of it.

    Raises:
        ShardError: it is missing, cut off, has other samples or other bytes than the manifest says, or one of them is
            bad; all samples before that are yielded.
    """
    require_webdataset()
    keys, hashing = iter(record.keys), None
    try:
        with open_place(place) as stream:
            hashing = _Hashing(stream)
            source: Any = hashing  # in this mode it only has to be read
            with tarfile.open(fileobj=source, mode="r|") as archive:
                for member in archive:
                    expected = next(keys, None)
                    key, _, ending = member.name.partition(".")
                    if key != expected or ending != _ENDING:
                        raise ShardError(
                            f"shard {place} has {member.name!r:.80} in the place of sample {expected!r}: build it again"
                        )
                    content = archive.extractfile(member)
                    data = b"" if content is None else content.read()
                    yield TrainingSample.from_bytes(data, key)
            hashing.read_rest()
    except SampleError as error:
        raise ShardError(f"shard {place}: {error}") from error
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ShardError(f"shard {place} cannot be read, as if it were cut off: {error}") from error
    if (missing := next(keys, None)) is not None:
        raise ShardError(f"shard {place} ends before sample {missing!r}, as if it were cut off: copy or build it again")
    if hashing.digest != record.sha256:
        raise ShardError(f"shard {place} has other bytes than {MANIFEST} says: copy or build it again")


@dataclass(frozen=True)
class Dataset:
    """A finished data set.

    Attributes:
        location: its folder, or an address that webdataset reads (``https://``, ``gs://``, ...), without a last slash.
        manifest: what it holds.
    """

    location: str
    manifest: DatasetManifest

    @staticmethod
    def open(location: str | Path) -> Dataset:
        """Read the manifest.

        Raises:
            TrainingDataError: there is none, it is of another format, or lists no samples.
        """
        require_webdataset()
        root = str(location).rstrip("/\\")
        try:
            with open_place(f"{root}/{MANIFEST}") as file:
                text = file.read()
        except OSError as error:
            raise TrainingDataError(
                f"{root} has no {MANIFEST}, so it is no finished data set: finish it with the command that began it, "
                f"ex4d dataset build ({error})"
            ) from error
        manifest = DatasetManifest.from_json(text, f"{root}/{MANIFEST}")
        if not manifest.samples:
            raise TrainingDataError(f"the data set {root} has no samples")
        return Dataset(root, manifest)

    def samples(self, shard: ShardRecord) -> Iterator[TrainingSample]:
        """Yield a shard's samples in their order; errors as `read_shard`."""
        for sample in read_shard(f"{self.location}/{shard.name}", shard):
            if sample.shapes != self.manifest.shapes:
                raise ShardError(
                    f"shard {self.location}/{shard.name}: sample {sample.key!r} has shapes {sample.shapes}, but "
                    f"{MANIFEST} says {self.manifest.shapes}"
                )
            if str(sample.target_latents.dtype) != f"torch.{self.manifest.dtype}":
                raise ShardError(
                    f"shard {self.location}/{shard.name}: sample {sample.key!r} is {sample.target_latents.dtype}, but "
                    f"{MANIFEST} says {self.manifest.dtype}"
                )
            yield sample

    def stream(self, seed: int, start: int = 0, *, step: int = 1) -> Iterator[TrainingSample]:
        """Yield samples without end, in an order that seed and position alone say.

        Each pass over the data has all samples once: shards in a random order, and the samples of each shard in a
        random order. One shard at a time is in memory.

        Args:
            start: position of the first sample in the endless order: resuming at it continues exactly.
            step: distance of positions: rank r of n reads ``stream(seed, start + r, step=n)``.

        Raises:
            ShardError: see `read_shard`.
        """
        total, position, number = self.manifest.samples, start, start // self.manifest.samples
        while True:
            first = number * total
            for shard, order in self._order_of_pass(seed, number):
                wanted = [order[place - first] for place in range(position, first + len(order), step)]
                first += len(order)
                if not wanted:
                    continue
                position += step * len(wanted)
                read = list(self.samples(shard))
                yield from (read[index] for index in wanted)
            number += 1

    def _order_of_pass(self, seed: int, number: int) -> Iterator[tuple[ShardRecord, list[int]]]:
        generator = random.Random(f"{seed} {number}")
        shards = [shard for shard in self.manifest.shards if shard.keys]
        for shard in generator.sample(shards, len(shards)):
            yield shard, generator.sample(range(len(shard.keys)), len(shard.keys))


def open_place(place: str) -> IO[bytes]:
    """Open a file of a folder, or an address, for reading.

    Raises:
        OSError: it is not there, or its kind of address is unknown.
    """
    from webdataset.gopen import gopen, gopen_schemes

    scheme = place.partition("://")[0] if "://" in place else ""
    if not scheme:
        return open(place, "rb")
    if scheme == "pipe" or scheme not in gopen_schemes:
        raise OSError(f"addresses of the kind {scheme}:// cannot be read")
    stream: Any = gopen(place, "rb")
    return stream


def require_webdataset() -> None:
    """Raise TrainingDataError where the extra is not installed."""
    if importlib.util.find_spec("webdataset") is None:
        raise TrainingDataError(f"training data need the package webdataset: {install_command('train')}")


class _Hashing:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._hash = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def read_rest(self) -> None:
        while self.read(1 << 20):
            pass

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
