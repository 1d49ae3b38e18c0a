"""The process group of a shot's ranks: which part of a pass each computes, and how they exchange and end.

A rank holds a part of the tokens; for self-attention, all-to-all exchanges tokens for heads and back (Ulysses). Neither
tokens nor heads need to divide evenly.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import distributed

from ex4d_core.errors import Ex4dError

# All exchanged values travel as words of 8 bytes: every backend can send them, and fp8 values are rearranged faster so.
_WORD = torch.int64


class RankLostError(Ex4dError):
    """Another rank ended; `RankProcesses.failure` has the reason."""


@contextmanager
def _collective() -> Iterator[None]:
    """Wrap an operation of all ranks.

    Raises:
        RankLostError: the operation failed, since a rank ended.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLostError(str(error)) from error


class PassShard:
    """One rank's part of a pass: ``index`` of ``count`` parts of the tokens, and one prompt or, if None, all.

    ``token_group`` has the ranks with the same prompt, ``prompt_group`` those with the same tokens.
    """

    def __init__(
        self,
        prompt: int | None,
        index: int,
        count: int,
        token_group: distributed.ProcessGroup,
        prompt_group: distributed.ProcessGroup,
    ):
        self.prompt = prompt
        self._index = index
        self._count = count
        self._token_group = token_group
        self._prompt_group = prompt_group

    def token_slice(self, total: int) -> slice:
        """Return this rank's part of ``total`` tokens."""
        sizes = split_evenly(total, self._count)
        start = sum(sizes[: self._index])
        return slice(start, start + sizes[self._index])

    def tokens_to_heads(self, qkv: torch.Tensor, total: int, head_dim: int) -> torch.Tensor:
        """Exchange own tokens (n, 3 C) of queries, keys and values for all tokens of own heads, (total, 3 C')."""
        if self._count == 1:
            return qkv
        words = qkv.view(_WORD).view(len(qkv), 3, qkv.shape[1] // 3 // head_dim, -1)
        tokens, heads = split_evenly(total, self._count), split_evenly(words.shape[2], self._count)
        sent = words.new_empty(words.numel())
        send_sizes = [3 * len(qkv) * share * words.shape[3] for share in heads]
        for buffer, part in zip(sent.split(send_sizes), words.split(heads, dim=2), strict=True):
            buffer.view(part.shape).copy_(part)
        columns = 3 * heads[self._index] * words.shape[3]
        received = self._all_to_all(sent, send_sizes, [count * columns for count in tokens])
        return received.view(qkv.dtype).view(total, -1)

    def heads_to_tokens(self, attended: torch.Tensor, total: int, heads: int, head_dim: int) -> torch.Tensor:
        """Exchange all tokens of own heads (total, C') for own tokens of all ``heads``, (n, C)."""
        if self._count == 1:
            return attended
        # The tokens for each rank are contiguous already, so they are sent from where they are.
        words = attended.contiguous().view(_WORD)
        tokens, shares = split_evenly(total, self._count), split_evenly(heads, self._count)
        own = tokens[self._index]
        columns = head_dim * attended.itemsize // _WORD.itemsize
        receive_sizes = [own * share * columns for share in shares]
        received = self._all_to_all(words.flatten(), [count * words.shape[1] for count in tokens], receive_sizes)
        return torch.cat([part.view(own, -1) for part in received.split(receive_sizes)], dim=1).view(attended.dtype)

    def all_reduce_max(self, value: torch.Tensor) -> torch.Tensor:
        """Return the maximum of a (1,) value over the ranks with the same prompt."""
        if self._count > 1:
            with _collective():
                distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._token_group)
        return value

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of values over the ranks with the same prompt."""
        if self._count > 1:
            with _collective():
                distributed.all_reduce(values, distributed.ReduceOp.SUM, group=self._token_group)
        return values

    def all_gather_tokens(self, rows: torch.Tensor, total: int) -> torch.Tensor:
        """Return the rows of all ``total`` tokens."""
        if self._count == 1:
            return rows
        sizes = split_evenly(total, self._count)
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        with _collective():
            distributed.all_gather(gathered, padded, group=self._token_group)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    def all_gather_prompts(self, velocity: torch.Tensor) -> list[torch.Tensor]:
        """Return the velocities of the positive and the negative prompt."""
        gathered = [torch.empty_like(velocity) for _ in range(2)]
        with _collective():
            distributed.all_gather(gathered, velocity.contiguous(), group=self._prompt_group)
        return gathered

    def _all_to_all(self, sent: torch.Tensor, send_sizes: list[int], receive_sizes: list[int]) -> torch.Tensor:
        received = sent.new_empty(sum(receive_sizes))
        with _collective():
            distributed.all_to_all_single(received, sent, receive_sizes, send_sizes, group=self._token_group)
        return received


def split_evenly(total: int, parts: int) -> list[int]:
    """Split ``total`` into ``parts`` sizes that differ by at most 1."""
    return [total // parts + (number < total % parts) for number in range(parts)]


class SequenceParallelGroup:
    """One rank's membership in the process group.

    Attributes:
        busy: the other ranks have started work that this rank has not, or all are in the middle of a step. If this rank
            leaves then, they wait forever, or mix its next work with this one.
        in_native_code: in a pass, and while it leaves, this rank may wait for others where no exception reaches it.
    """

    def __init__(self, rank: int, size: int, device: torch.device, store: Path):
        """Join the group; all ``size`` ranks must do so, with the same file ``store``."""
        self.rank, self.size = rank, size
        self.busy = False
        self.in_native_code = False
        self._rank_lost = threading.Event()
        self._aborting = threading.Lock()
        self._device = device
        self._shards: dict[bool, PassShard] = {}
        self._subgroups: list[distributed.ProcessGroup] = []
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            init_method=store.as_uri(),
            rank=rank,
            world_size=size,
        )

    def shard(self, *, guided: bool) -> PassShard:
        """Return this rank's part of a pass with or without guidance; all ranks must ask for the same."""
        if guided not in self._shards:
            prompts = 2 if guided and self.size % 2 == 0 else 1
            parts = self.size // prompts
            prompt, part = divmod(self.rank, parts)
            # Every rank creates every group, in the same order.
            with _collective():
                by_prompt = [distributed.new_group([h * parts + p for p in range(parts)]) for h in range(prompts)]
                by_part = [distributed.new_group([h * parts + p for h in range(prompts)]) for p in range(parts)]
                # Torch returns a number for groups without this rank, but these two have it.
                own = [cast(distributed.ProcessGroup, group) for group in (by_prompt[prompt], by_part[part])]
                for group in own:
                    # NCCL connects at the first exchange, and waiting for that cannot be aborted.
                    distributed.all_reduce(torch.zeros(1, device=self._device), group=group)
            self._subgroups += own
            self._shards[guided] = PassShard(prompt if prompts == 2 else None, part, parts, *own)
        return self._shards[guided]

    def barrier(self) -> None:
        """Wait until all ranks have loaded what they need.

        Raises:
            RankLostError: one could not.
        """
        with _collective():
            distributed.all_reduce(torch.zeros(1))

    def broadcast_continue(self, wanted: bool = True) -> bool:
        """Before each step: return whether rank 0 wants it."""
        flag = torch.tensor([int(wanted)])
        with _collective():
            distributed.broadcast(flag, 0)
        return bool(flag.item())

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Wrap a pass, until its result is on the GPU.

        Raises:
            RankLostError: a rank ended meanwhile, so the result is invalid.
        """
        self.busy = self.in_native_code = True
        self._require_all()
        yield
        self._require_all()
        self.busy = self.in_native_code = False

    def abort(self) -> None:
        """End all waiting for other ranks, in native code too, after one has ended; may be called in any thread."""
        self._rank_lost.set()
        with self._aborting:
            for group in self._subgroups:
                # In torch's types only the backends have it.
                group.abort()  # pyright: ignore[reportAttributeAccessIssue]
            self._subgroups.clear()

    def leave(self) -> None:
        """Leave the group, whose other ranks have ended."""
        self.in_native_code = True
        if self.busy:
            # Exchanges on this GPU would wait for them forever.
            self.abort()
        with self._aborting:
            self._subgroups.clear()
            distributed.destroy_process_group()
        self.in_native_code = False

    def _require_all(self) -> None:
        if self._rank_lost.is_set():
            raise RankLostError("a process has ended")
