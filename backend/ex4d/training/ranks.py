"""The processes of a run, which accelerate's launcher starts: one per GPU, on one or many machines.

A process that fails tells the others why before it ends, and they end with its reason instead of waiting for it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from ex4d.generation.wan.parallel.group import RankLostError
from ex4d.training.errors import TrainingUnavailableError
from ex4d_core.errors import user_message

if TYPE_CHECKING:
    from accelerate import Accelerator

# Where the first process that fails leaves its reason, in the store that the process group was made with.
_REASON = "ex4d/failed"
_WATCH_SECONDS = 1.0


def accelerator_of(device: str, *, shard: bool) -> Accelerator:
    """Accelerate's view of this process, alone or one of those that its launcher started.

    Precision is not its business: `Trainer` computes in the same context as inference does.

    Args:
        device: "cpu", "cuda" or "cuda:N", of a process that is alone.
        shard: split the frozen weights over all processes (FSDP2) instead of a copy in each (DDP).

    Raises:
        TrainingUnavailableError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import FullyShardedDataParallelPlugin
    except ImportError as error:
        raise TrainingUnavailableError.without(error) from error
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    plugin = None
    if shard and several:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["Block", "ContextLayers"],
            cpu_ram_efficient_loading=False,
        )
    on_cpu = torch.device(device).type == "cpu"
    if not several and torch.device(device).index is not None:
        torch.cuda.set_device(torch.device(device))
    return Accelerator(cpu=on_cpu, mixed_precision="no", fsdp_plugin=plugin)


@contextmanager
def failing_together() -> Iterator[None]:
    """Let all ranks end when one fails, with its reason.

    Raises:
        RankLostError: another rank ended without a reason, so that an exchange with it failed.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() < 2:
        yield
        return
    store, rank, done = distributed.distributed_c10d._get_default_store(), distributed.get_rank(), threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(store, rank, done), daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        reason = reason_of(store)
        if reason is None:
            with suppress(RuntimeError):
                store.set(_REASON, f"{rank} {user_message(error)}")
        elif not reason.startswith(f"{rank} "):
            _end(reason, rank)
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError):
            raise RankLostError(f"another process of this run ended: {error}") from error
        raise
    finally:
        done.set()


def reason_of(store: Any) -> str | None:
    """The rank that failed and why, as "1 the reason"; None while none has."""
    try:
        return store.get(_REASON).decode() if store.check([_REASON]) else None
    except RuntimeError:  # the process that holds the store has ended
        return None


def _end_with_others(store: Any, rank: int, done: threading.Event) -> None:
    """End this process when another has failed: it may wait in an exchange that nothing else can interrupt."""
    while not done.wait(_WATCH_SECONDS):
        reason = reason_of(store)
        if reason is not None and not reason.startswith(f"{rank} "):
            _end(reason, rank)


def _end(reason: str, rank: int) -> None:
    failed, _, why = reason.partition(" ")
    print(f"ex4d train: process {rank} ends, since process {failed} failed: {why}", file=sys.stderr, flush=True)
    os._exit(1)
