"""The processes of ranks 1 and up, as rank 0 sees them: started, sent work, watched and ended.

Work is a line of JSON, then the tensors as safetensors. Nothing is pickled, so a message cannot run code.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import distributed

from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.memory import MemoryMode
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.parallel.group import RankLostError, SequenceParallelGroup
from ex4d.subprocesses import module_command, module_environment
from ex4d.weights.converted import ConvertedWeights
from ex4d.weights.wan_files import WanFiles
from ex4d_core.errors import is_expected
from ex4d_core.wan_settings import WanSettings

# How long a rank that waits for a lost one may take to notice, before this process ends with it.
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class WindowWork:
    """A window to denoise, with the networks of ``choice`` in ``mode`` or a smaller one, on each rank's device."""

    choice: NetworkChoice
    mode: MemoryMode
    settings: WanSettings
    noise: torch.Tensor
    conditioning: WindowConditioning

    def to_bytes(self) -> bytes:
        """Encode for `read_work`."""
        tensors = {"noise": self.noise, **vars(self.conditioning)}
        # Copies, since safetensors refuses tensors that share memory, such as those of equal prompts.
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        body = safetensors.torch.save({name: tensor.cpu().clone().contiguous() for name, tensor in present.items()})
        header = {"choice": asdict(self.choice), "mode": self.mode, "settings": self.settings.to_wire()}
        return json.dumps({**header, "bytes": len(body)}, default=str).encode() + b"\n" + body


def read_work(file: BinaryIO) -> WindowWork | None:
    """Read what `WindowWork.to_bytes` wrote; None at the end of the stream."""
    line = file.readline()
    if not line:
        return None
    header = json.loads(line)
    body = file.read(header["bytes"])
    if len(body) < header["bytes"]:
        return None
    tensors = safetensors.torch.load(body)
    choice = header["choice"]
    dit, text_encoder = (tuple(map(Path, choice["files"].pop(name))) for name in ("dit", "text_encoder"))
    single = {name: Path(path) for name, path in choice["files"].items()}
    choice["files"] = WanFiles(dit, text_encoder, **single)
    choice["loras"] = tuple((Path(path), weight) for path, weight in choice["loras"])
    choice["further_devices"] = tuple(choice["further_devices"])
    if (kept := choice["converted"]) is not None:
        choice["converted"] = ConvertedWeights(Path(kept["folder"]), kept["limit_gb"])
    return WindowWork(
        NetworkChoice(**choice),
        header["mode"],
        WanSettings.from_wire(header["settings"]),
        tensors.pop("noise"),
        WindowConditioning(**{"negative_prompt_embeds": None, **tensors}),
    )


class RankProcesses:
    """The other ranks: a process for each of ``devices`` but the first, which is this process's own.

    Attributes:
        alive: no rank has ended by itself.
        group: the process group, as rank 0.

    Raises:
        GenerationError: the processes cannot connect to each other.
    """

    def __init__(self, devices: tuple[str, ...]):
        self._folder = tempfile.TemporaryDirectory(prefix="ex4d-ranks-")
        self._path = Path(self._folder.name)
        self._closing, self._closed, self._joined = threading.Event(), threading.Event(), threading.Event()
        self._failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self.alive = True
        self._processes: list[subprocess.Popen[bytes]] = []
        store = self._path / "store"
        for rank, device in enumerate(devices[1:], start=1):
            arguments = (str(rank), str(len(devices)), device, str(store))
            command = module_command("ex4d.generation.wan.parallel.rank", *arguments)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=module_environment())
            self._processes.append(process)
            threading.Thread(target=self._watch, args=(process, rank, device), daemon=True).start()
        try:
            self.group = SequenceParallelGroup(0, len(devices), torch.device(devices[0]), store)
        except RuntimeError as error:
            self._end_all()
            # Torch names groups by their number, which must be the same in new processes. It has counted this one, and
            # destroying, which starts again at 0, needs a group that was created.
            distributed.distributed_c10d._world.group_count = 0
            raise GenerationError(f"{', '.join(devices)} cannot share a shot: {error}") from error
        self._joined.set()

    def send(self, work: WindowWork) -> None:
        """Let the other ranks start what rank 0 starts.

        Raises:
            RankLostError: one has ended.
        """
        message = work.to_bytes()
        self.group.busy = True
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(message)
                process.stdin.flush()
            except OSError as error:
                raise RankLostError(str(error)) from error

    def failure(self, lost: RankLostError) -> Exception:
        """Return why another rank ended: `torch.OutOfMemoryError` for memory, else a `GenerationError`."""
        try:
            return self._failures.get(timeout=_GRACE_SECONDS)
        except queue.Empty:
            return GenerationError(f"the processes of this shot's GPUs lost contact ({lost}): try again")

    def close(self) -> None:
        """End the other ranks."""
        self._end_all()
        self.group.leave()
        self._closed.set()
        self._folder.cleanup()

    def _end_all(self) -> None:
        self._closing.set()
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # unsent data
                process.stdin.close()

    def _watch(self, process: subprocess.Popen[bytes], rank: int, device: str) -> None:
        """Wait for a rank's end; rank 0 may wait for it in native code and must then be freed, with the reason."""
        code = process.wait()
        if self._closing.is_set():
            return
        self.alive = False
        if failure := self._failure_of(rank, device, code):
            print(f"rank {rank}: {failure}", file=sys.stderr, flush=True)
            self._failures.put(failure)
        if not self._joined.is_set():
            os._exit(1)  # rank 0 waits for it to join
        # NCCL may not notice: on two H200s an exchange in the middle of a pass kept waiting for its lost rank.
        threading.Thread(target=self.group.abort, daemon=True).start()
        while not self._closed.wait(_GRACE_SECONDS):
            if self.group.in_native_code:
                print(f"rank 0 still waits for rank {rank}: this process ends too", file=sys.stderr, flush=True)
                os._exit(1)

    def _failure_of(self, rank: int, device: str, code: int) -> Exception | None:
        """Return why a rank ended; None if it did because of another one."""
        try:
            report = json.loads((self._path / f"failure-{rank}.json").read_text(encoding="utf-8"))
        except OSError:
            reason = f"ended with exit code {code}"
            if code < 0:
                reason = f"was killed by {signal.Signals(-code).name}, by the system if memory ran out"
            return GenerationError(f"the process on {device}, which shares this shot, {reason}")
        if report["kind"] == "lost":
            return None
        kind = torch.OutOfMemoryError if report["kind"] == "memory" else GenerationError
        return kind(f"on {device}: {report['text']}")


def report_failure(error: BaseException, folder: Path, rank: int) -> None:
    """Write, on a rank that is about to end, the reason for `RankProcesses`."""
    kind = {RankLostError: "lost", torch.OutOfMemoryError: "memory"}.get(type(error), "")
    text = str(error) if kind or is_expected(error) else f"{type(error).__name__}: {error}"
    (folder / f"failure-{rank}.json").write_text(json.dumps({"kind": kind, "text": text}), encoding="utf-8")
