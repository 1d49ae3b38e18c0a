"""One shot on several GPUs: the two prompts of guidance apart, and a prompt's tokens among the GPUs that share it.

Every rank runs the same steps on the same latents. A rank holds a part of the tokens; only for self-attention tokens
are exchanged for heads and back (Ulysses: Jacobs et al., 2023), by an all-to-all of our own that needs neither tokens
nor heads to divide evenly. Rank 0 is the engine's own process; it starts the others (`rank`) and ends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import distributed

from ex4d.generate.wan.errors import GenerationError
from ex4d.subprocesses import module_command, module_environment
from ex4d_core.errors import Ex4dError

# What is exchanged goes as words of 8 bytes, whatever it is: every backend can send them, and values of 8 bits are
# rearranged faster by the word.
_WORD = torch.int64

# How long what waits for a lost rank may take to notice, before this process ends with it.
_PATIENCE_SECONDS = 30


class Split:
    """What one rank does of a pass.

    Args:
        half: which prompt this rank runs; None for all of them.
        place, places: this rank's part of the tokens, of so many.
        tokens_group, halves_group: ranks with the same prompt, and with the same part.
    """

    def __init__(self, half: int | None, place: int, places: int, tokens_group, halves_group):
        self.half = half
        self._place = place
        self._places = places
        self._tokens_group = tokens_group
        self._halves_group = halves_group

    def rows(self, total: int) -> slice:
        """This rank's part of so many rows."""
        sizes = _parts(total, self._places)
        start = sum(sizes[: self._place])
        return slice(start, start + sizes[self._place])

    def to_heads(self, qkv: torch.Tensor, total: int, head: int) -> torch.Tensor:
        """Own rows of (n, 3 C) queries, keys and values to all rows of own heads, (total, 3 C')."""
        if self._places == 1:
            return qkv
        words = qkv.view(_WORD).view(len(qkv), 3, qkv.shape[1] // 3 // head, -1)
        rows, heads = _parts(total, self._places), _parts(words.shape[2], self._places)
        sent = words.new_empty(words.numel())
        counts = [3 * len(qkv) * share * words.shape[3] for share in heads]
        for place, part in zip(sent.split(counts), words.split(heads, dim=2), strict=True):
            place.view(part.shape).copy_(part)
        columns = 3 * heads[self._place] * words.shape[3]
        received = self._exchange(sent, counts, [count * columns for count in rows])
        return received.view(qkv.dtype).view(total, -1)

    def to_tokens(self, attended: torch.Tensor, total: int, heads: int, head: int) -> torch.Tensor:
        """All rows of own heads (total, C') to own rows of all ``heads``, (n, C)."""
        if self._places == 1:
            return attended
        # A rank's rows follow one another already: they are sent from where they are.
        words = attended.contiguous().view(_WORD)
        rows, shares = _parts(total, self._places), _parts(heads, self._places)
        own = rows[self._place]
        columns = head * attended.itemsize // _WORD.itemsize
        counts = [own * share * columns for share in shares]
        received = self._exchange(words.flatten(), [count * words.shape[1] for count in rows], counts)
        return torch.cat([part.view(own, -1) for part in received.split(counts)], dim=1).view(attended.dtype)

    def largest(self, value: torch.Tensor) -> torch.Tensor:
        """The largest of all ranks' (1,) values."""
        if self._places > 1:
            with _together():
                distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._tokens_group)
        return value

    def gathered(self, rows: torch.Tensor, total: int) -> torch.Tensor:
        """All rows, from every rank's own ones."""
        if self._places == 1:
            return rows
        sizes = _parts(total, self._places)
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        everything = [torch.empty_like(padded) for _ in sizes]
        with _together():
            distributed.all_gather(everything, padded, group=self._tokens_group)
        return torch.cat([part[:size] for part, size in zip(everything, sizes, strict=True)])

    def of_both_halves(self, velocity: torch.Tensor) -> list[torch.Tensor]:
        """The positive prompt's and the negative one's, from this rank's one."""
        both = [torch.empty_like(velocity) for _ in range(2)]
        with _together():
            distributed.all_gather(both, velocity.contiguous(), group=self._halves_group)
        return both

    def _exchange(self, sent: torch.Tensor, counts: list[int], receive: list[int]) -> torch.Tensor:
        """Send each rank in turn so many of the words, and receive so many from it."""
        received = sent.new_empty(sum(receive))
        with _together():
            distributed.all_to_all_single(received, sent, receive, counts, group=self._tokens_group)
        return received


def _parts(total: int, parts: int) -> list[int]:
    """``total`` in ``parts`` as equal as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]


class Team:
    """A rank's membership; to be made by all ranks at once.

    Attributes:
        busy: the others have begun what this rank has not, or all are in the middle of a step; if this rank leaves it
            there, they wait without end, or take part in its next work with what they have of this one.
    """

    def __init__(self, rank: int, size: int, device: torch.device, store: Path):
        self.rank, self.size = rank, size
        self.busy = False
        # In a pass, and while it leaves, this rank may wait for others in native code, which no exception reaches.
        self.in_native_code = False
        self._lost = threading.Event()
        self._ending = threading.Lock()
        self._device = device
        self._splits: dict[bool, Split] = {}
        self._groups: list[distributed.ProcessGroup] = []
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            init_method=store.as_uri(),
            rank=rank,
            world_size=size,
        )

    def split(self, guided: bool) -> Split:
        """How a pass is shared out; all ranks must ask for the same."""
        if guided not in self._splits:
            halves = 2 if guided and self.size % 2 == 0 else 1
            places = self.size // halves
            half, place = divmod(self.rank, places)
            groups = [[h * places + p for p in range(places)] for h in range(halves)]
            pairs = [[h * places + p for h in range(halves)] for p in range(places)]
            # Everybody makes every group, in the same order.
            with _together():
                tokens_groups, halves_groups = (
                    [distributed.new_group(ranks) for ranks in of] for of in (groups, pairs)
                )
                own_groups = [tokens_groups[half], halves_groups[place]]
                for group in own_groups:
                    # NCCL connects at the first exchange, and what waits for that cannot be aborted.
                    distributed.all_reduce(torch.zeros(1, device=self._device), group=group)
            self._groups += own_groups
            self._splits[guided] = Split(
                half if halves == 2 else None, place, places, tokens_groups[half], halves_groups[place]
            )
        return self._splits[guided]

    def begin(self) -> None:
        """Before the first step: wait until all have loaded what they need.

        Raises:
            RankLost: one could not.
        """
        with _together():
            distributed.all_reduce(torch.zeros(1))

    def go_on(self, wanted: bool = True) -> bool:
        """Before each step: whether rank 0 wants it."""
        flag = torch.tensor([int(wanted)])
        with _together():
            distributed.broadcast(flag, 0)
        return bool(flag.item())

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around a pass, until what it made is there.

        Raises:
            RankLost: a rank ended meanwhile, so what was made is worth nothing.
        """
        self.busy = self.in_native_code = True
        self._require_all()
        yield
        self._require_all()
        self.busy = self.in_native_code = False

    def give_up(self) -> None:
        """From any thread: a rank has ended. Where this one waits for it in native code, it goes on."""
        self._lost.set()
        with self._ending:
            for group in self._groups:
                group.abort()
            self._groups.clear()

    def leave(self) -> None:
        """The others have ended; this process goes on without them."""
        self.in_native_code = True
        if self.busy:
            # What is exchanged on this GPU would wait for them for good.
            self.give_up()
        with self._ending:
            self._groups.clear()
            distributed.destroy_process_group()
        self.in_native_code = False

    def _require_all(self) -> None:
        if self._lost.is_set():
            raise RankLost("a process has ended")


@contextmanager
def _together() -> Iterator[None]:
    """Around what all ranks do at once: it fails where one of them is gone.

    Raises:
        RankLost: it did.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLost(str(error)) from error


class Stopped(Exception):
    """Rank 0 wants no further step."""


class RankLost(Ex4dError):
    """Another rank is gone; `Peers.loss` says why."""


def report_failure(error: BaseException, folder: Path, rank: int) -> None:
    """On a rank that is about to end: leave word for `Peers`."""
    kind = {RankLost: "lost", torch.OutOfMemoryError: "memory"}.get(type(error), "")
    speaks_for_itself = isinstance(error, (ValueError, RuntimeError)) and type(error).__module__ != "builtins"
    text = str(error) if speaks_for_itself else f"{type(error).__name__}: {error}"
    _report(folder, rank).write_text(json.dumps({"kind": kind, "text": text}), encoding="utf-8")


def _report(folder: Path, rank: int) -> Path:
    return folder / f"failure-{rank}.json"


class Peers:
    """The other ranks as the engine sees them.

    Args:
        devices: of all ranks, the engine's own first.

    Attributes:
        alive: no rank has ended by itself.
    """

    def __init__(self, devices: tuple[str, ...]):
        self._folder = tempfile.TemporaryDirectory(prefix="ex4d-ranks-")
        self._path = Path(self._folder.name)
        self._closing, self._closed = threading.Event(), threading.Event()
        self._losses: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self.alive = True
        self.team: Team | None = None
        self._processes = []
        store = self._path / "store"
        for rank, device in enumerate(devices[1:], start=1):
            arguments = (str(rank), str(len(devices)), device, str(store))
            command = module_command("ex4d.generate.wan.parallel.rank", *arguments)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=module_environment())
            self._processes.append(process)
            threading.Thread(target=self._watch, args=(process, rank, device), daemon=True).start()
        try:
            self.team = Team(0, len(devices), torch.device(devices[0]), store)
        except RuntimeError as error:
            self._end_all()
            # Torch names groups by their number, which others would not know. It counts this one, and only a group that
            # was made can be destroyed, which would begin again.
            distributed.distributed_c10d._world.group_count = 0
            raise GenerationError(f"{', '.join(devices)} cannot share a shot: {error}") from error

    def start(self, work: dict[str, object]) -> None:
        """Have all ranks begin what rank 0 begins.

        Raises:
            RankLost: one is gone.
        """
        message = pickle.dumps(work)
        self.team.busy = True
        for process in self._processes:
            try:
                process.stdin.write(len(message).to_bytes(8, "little") + message)
                process.stdin.flush()
            except OSError as error:
                raise RankLost(str(error)) from error

    def loss(self, lost: RankLost) -> Exception:
        """What went wrong on another rank: out of memory stays that, and all else is a `GenerationError`."""
        try:
            return self._losses.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return GenerationError(f"the processes of this shot's GPUs have lost each other ({lost}); try again")

    def close(self) -> None:
        """End the other ranks."""
        self._end_all()
        self.team.leave()
        self._closed.set()
        self._folder.cleanup()

    def _end_all(self) -> None:
        self._closing.set()
        for process in self._processes:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):  # what was not sent yet
                process.stdin.close()

    def _watch(self, process: subprocess.Popen, rank: int, device: str) -> None:
        """A rank that ends leaves the others waiting for it, in native code: have rank 0 go on, and know why."""
        code = process.wait()
        if self._closing.is_set():
            return
        self.alive = False
        if loss := self._loss_of(rank, device, code):
            print(f"rank {rank}: {loss}", file=sys.stderr, flush=True)
            self._losses.put(loss)
        if self.team is None:
            os._exit(1)  # rank 0 waits for it to join
        # NCCL may take no notice: on two H200s an exchange in the middle of a pass went on to wait for its lost rank.
        threading.Thread(target=self.team.give_up, daemon=True).start()
        while not self._closed.wait(_PATIENCE_SECONDS):
            if self.team.in_native_code:
                print(f"rank 0 still waits for rank {rank}: this process ends too", file=sys.stderr, flush=True)
                os._exit(1)

    def _loss_of(self, rank: int, device: str, code: int) -> Exception | None:
        """Why a rank ended; None where it did because of another one."""
        try:
            report = json.loads(_report(self._path, rank).read_text(encoding="utf-8"))
        except OSError:
            how = f"ended with exit code {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}, by the system if memory ran out"
            return GenerationError(f"the process on {device}, which shares this shot, {how}")
        if report["kind"] == "lost":
            return None
        kind = torch.OutOfMemoryError if report["kind"] == "memory" else GenerationError
        return kind(f"on {device}: {report['text']}")


def read_work(file: BinaryIO) -> dict[str, object] | None:
    """What `Peers.start` sent; None at the end."""
    length = _read(file, 8)
    return pickle.loads(_read(file, int.from_bytes(length, "little"))) if len(length) == 8 else None


def _read(file: BinaryIO, count: int) -> bytes:
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
