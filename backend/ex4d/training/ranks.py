"""The processes of a run, which accelerate's launcher starts: one per GPU, on one or many machines.

A process that fails tells the others why before it ends, and they end with its reason instead of waiting for it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn

from ex4d.generation.wan.parallel.group import RankLostError
from ex4d.training.errors import TrainingUnavailableError
from ex4d_core.errors import user_message

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ex4d.training.adapter import TrainedTransformer

# Where the first process that fails leaves its reason, in the store that the process group was made with.
_REASON = "ex4d/failed"
_WATCH_SECONDS = 1.0


def accelerator_of(device: str) -> Accelerator:
    """Accelerate's view of this process, alone or one of those that its launcher started.

    Precision is not its business: `Trainer` computes in the same context as inference does.

    Args:
        device: "cpu", "cuda" or "cuda:N", of a process that is alone.

    Raises:
        TrainingUnavailableError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise TrainingUnavailableError.without(error) from error
    # Without it, products on a GPU may use workspaces that change sums from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = torch.device(device).type == "cpu"
    if not several and torch.device(device).index is not None:
        torch.cuda.set_device(torch.device(device))
    return Accelerator(cpu=on_cpu, mixed_precision="no")


def distribute(model: TrainedTransformer, accelerator: Accelerator, *, shard: bool) -> nn.Module:
    """Make processes train one model: its gradients become means over all of them.

    Args:
        shard: split all weights over the processes (FSDP2) instead of a copy in each (DDP). Accelerate's own does that
            on GPUs alone; this is the same everywhere, and keeps the two types of weights apart.
    """
    if accelerator.num_processes == 1:
        return model
    if shard:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for part in (*model.contexts, *model.blocks, model):
            fully_shard(part, mesh=mesh)
        return model
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    # At its start DDP would send all frozen weights to every process, which has them.
    object.__setattr__(model, "_ddp_params_and_buffers_to_ignore", frozen)
    return accelerator.prepare_model(model)


def as_first_decides(own: bool) -> bool:
    """The first process's answer to a question that all processes ask at the same time."""
    from accelerate.utils import broadcast_object_list

    answers = [own]
    broadcast_object_list(answers)
    return answers[0]


@contextmanager
def gradients_exchanged(model: nn.Module, accelerator: Accelerator, chosen: bool) -> Iterator[None]:
    """Exchange the gradients of what runs within, or add them to this process's own, for a later pass."""
    sharded_switch: Callable[[bool], None] | None = getattr(model, "set_requires_gradient_sync", None)
    if sharded_switch is not None:
        sharded_switch(chosen)
    with nullcontext() if chosen or sharded_switch is not None else accelerator.no_sync(model):
        yield


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
