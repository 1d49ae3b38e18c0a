"""`RunFolder`: what a training run has on disk: its configuration, its states, its logs and sample videos.

    run.json             the configuration; a run that is resumed must have the same
    state-00000250/      adapter.safetensors, optimizer.safetensors and state.json after that step
    logs/                for TensorBoard
    samples/             videos
    exports.txt          SHA-256 of each adapter file that was exported

A state gets its name when all of it is on disk, and older ones are removed after that, so that whatever ends a run,
also a full disk, leaves the last whole state.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch

from ex4d.training.errors import RunDiffersError, TrainingError
from ex4d.training.settings import FREE_ON_RESUME, AdapterShape, TrainingSettings
from ex4d.weights.checkpoints import read_checkpoint
from ex4d_core.durable_files import make_folder, put_in_place
from ex4d_core.errors import RequestError, full_disk_error
from ex4d_core.schema import Range, Settings

CONFIG = "run.json"
FORMAT = 1
_STATE = re.compile(r"state-(\d{8})")
_PARTIAL = "partial-"
_EXPORTS = "exports.txt"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class RunConfig(Settings):
    """All that decides what a run computes.

    Attributes:
        settings, shape: of the training and of the adapter.
        dataset: its folder or address, which may change.
        samples: the data set's `DatasetManifest.identity`.
        base: the frozen transformer's `base_identity`.
        started_from: the file that the adapter continues from, and its SHA-256; "" for none.
        started_from_sha256: of that file.
        format: of this file.
    """

    settings: TrainingSettings
    shape: AdapterShape
    dataset: str
    samples: str
    base: str
    started_from: str = ""
    started_from_sha256: str = ""
    format: Annotated[int, Range(FORMAT, FORMAT)] = FORMAT

    def differences(self, other: RunConfig) -> list[str]:
        """What another configuration has that would change the run: a line each, "name: own value, not other value"."""
        own, others = _flat(self), _flat(other)
        return [f"{name}: {own[name]}, not {others[name]}" for name in own if own[name] != others[name]]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _flat(config: RunConfig) -> dict[str, Any]:
    values = {
        entry.name: getattr(part, entry.name)
        for part in (config.settings, config.shape)
        for entry in fields(part)
        if entry.name not in FREE_ON_RESUME
    }
    what = {"data set": config.samples, "base model": config.base, "continued file": config.started_from_sha256}
    return {**values, **{name: value[:12] or "none" for name, value in what.items()}}


@dataclass(frozen=True)
class TrainingState:
    """Where a run is after a step; what chance decides follows from the step (`schedule`).

    Attributes:
        step: steps that are done.
        adapter: the trained tensors, by published names.
        optimizer: AdamW's, by the same names with a last part of their own.
    """

    step: int
    adapter: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]


class RunFolder:
    """A run's folder."""

    def __init__(self, folder: Path):
        """Use a folder, which need not exist yet."""
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.folder / CONFIG).is_file()

    @property
    def logs(self) -> Path:
        """For TensorBoard."""
        return self.folder / "logs"

    @property
    def samples(self) -> Path:
        """Videos."""
        return self.folder / "samples"

    def note_export(self, path: Path) -> None:
        """Remember a file that is about to be exported."""
        # Another user's run may be read-only: nothing but `has_exported` needs the note.
        with suppress(OSError), open(self.folder / _EXPORTS, "a", encoding="utf-8") as file:
            file.write(f"{file_sha256(path)}\n")
            file.flush()
            os.fsync(file.fileno())

    def has_exported(self, path: Path) -> bool:
        """Whether a file is one that this run has exported, as it was then."""
        exports = self.folder / _EXPORTS
        return exports.is_file() and file_sha256(path) in exports.read_text(encoding="utf-8").split()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here.

        Raises:
            TrainingError: one does already.
        """
        import filelock

        make_folder(self.folder)
        try:
            lock = filelock.FileLock(self.folder / "lock").acquire(timeout=0)
        except filelock.Timeout as error:
            raise TrainingError(
                f"another process trains in {self.folder}: wait for its end, or choose another folder"
            ) from error
        with lock:
            yield

    def start(self, config: RunConfig) -> None:
        """Write the configuration of a new run.

        Raises:
            TrainingError: there is one already.
        """
        if self.exists:
            raise TrainingError(
                f"{self.folder} has a run already: continue it with ex4d train resume, or choose another folder"
            )
        make_folder(self.folder)
        partial = self.folder / f"{CONFIG}.partial"
        partial.write_text(json.dumps(config.to_wire(), indent=1), encoding="utf-8")
        put_in_place(partial, self.folder / CONFIG)

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            TrainingError: there is no run here, or its file is damaged.
        """
        path = self.folder / CONFIG
        try:
            return RunConfig.from_wire(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise TrainingError(
                f"{self.folder} has no run ({CONFIG} is missing): start one with ex4d train start"
            ) from error
        except (RequestError, ValueError) as error:
            raise TrainingError(f"{path} is damaged: {error}") from error

    def require_same(self, config: RunConfig) -> None:
        """Check that a run would be continued as it began.

        Raises:
            RunDiffersError: names each difference.
        """
        if found := self.config().differences(config):
            raise RunDiffersError(
                f"the run in {self.folder} was started with another configuration: {'; '.join(found)}. Resume it as it "
                "was, or start another run in another folder (--from takes over an exported adapter)"
            )

    def steps(self) -> list[int]:
        """The steps whose states are here, in order."""
        found = (_STATE.fullmatch(entry.name) for entry in self.folder.glob("state-*") if entry.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def state_folder(self, step: int) -> Path:
        """Where the state after a step is."""
        return self.folder / f"state-{step:08d}"

    def read_state(self, step: int | None = None) -> TrainingState | None:
        """The state after a step, by default the last one; None if there is none yet.

        Raises:
            TrainingError: there is no state of that step.
            CheckpointError: its files are damaged.
        """
        steps = self.steps()
        if step is None and not steps:
            return None
        step = steps[-1] if step is None else step
        if step not in steps:
            raise TrainingError(
                f"{self.folder} has no state of step {step}: it has {', '.join(map(str, steps)) or 'none'}"
            )
        folder = self.state_folder(step)
        adapter, optimizer = (read_checkpoint(folder / f"{name}.safetensors") for name in ("adapter", "optimizer"))
        return TrainingState(step, adapter, optimizer)

    def keep_state(self, state: TrainingState, count: int) -> Path:
        """Write a state durably, and remove all but the last ``count``.

        Raises:
            TrainingError: the disk is full; all states before are still there.
        """
        target = self.state_folder(state.step)
        if target.exists():
            return target
        partial = self.folder / f"{_PARTIAL}{target.name}"
        self._remove_partial()
        try:
            self._require_room(state)
            partial.mkdir(parents=True)
            _write_tensors(state.adapter, partial / "adapter.safetensors")
            _write_tensors(state.optimizer, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps({"step": state.step}), encoding="utf-8")
            put_in_place(partial, target)
        except OSError as error:
            self._remove_partial()
            if full_disk_error(error) is None:
                raise
            steps = self.steps()
            kept = f"the state of step {steps[-1]} is kept" if steps else "there is no earlier state"
            raise TrainingError(
                f"the disk of {self.folder} is full: the state of step {state.step} could not be written; {kept}. Free "
                "some space, then continue with ex4d train resume"
            ) from error
        for step in self.steps()[:-count]:
            shutil.rmtree(self.state_folder(step))
        return target

    def _require_room(self, state: TrainingState) -> None:
        import errno

        size = sum(tensor.nbytes for part in (state.adapter, state.optimizer) for tensor in part.values())
        if shutil.disk_usage(self.folder).free < size:
            raise OSError(errno.ENOSPC, "no space left", str(self.folder))

    def _remove_partial(self) -> None:
        for left in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: as the system has it; safetensors has a text alone.
    """
    import errno

    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(errno.ENOSPC if "space" in str(error).lower() else errno.EIO, str(error), str(path)) from error
