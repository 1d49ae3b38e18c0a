"""A further rank of a shot on several GPUs: `python -m ex4d.generate.wan.parallel.rank RANK SIZE DEVICE STORE`.

Started and ended by `parallel.Peers`; takes its work from standard input, whose end is its own.
"""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from ex4d.generate.wan.denoising import denoise
from ex4d.generate.wan.errors import GenerationError
from ex4d.generate.wan.loaded_networks import LoadedModels
from ex4d.generate.wan.parallel.group import RankLost, Stopped, Team, read_work, report_failure


def serve(rank: int, size: int, device: str, store: Path) -> None:
    """Take part in every window that rank 0 denoises. Whatever goes wrong is told to rank 0, and ends this process."""
    try:
        _take_part(rank, size, device, store)
    # Weights, GPUs and other ranks may raise anything, and rank 0 waits for this one.
    except BaseException as error:
        if not isinstance(error, RankLost):
            traceback.print_exc()
        report_failure(error, store.parent, rank)
        # An orderly end would wait for what the GPU exchanges with others.
        os._exit(1)


def _take_part(rank: int, size: int, device: str, store: Path) -> None:
    waiting: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    team = Team(rank, size, torch.device(device), store)
    models: LoadedModels | None = None
    while True:
        work = waiting.get()
        choice = replace(work["choice"], device=device, peers=())
        if models is None or models.choice != choice:
            if models is not None:
                models.unload()
            models = LoadedModels(choice)
            models.choose_mode(work["size"], work["frames"], work["mode"])
        conditions = work["conditions"].to(models.device)
        try:
            denoise(
                models.transformer,
                work["noise"].to(models.device),
                conditions,
                **work["schedule"],
                precision=models.precision,
                team=team,
            )
        except (Stopped, GenerationError) as error:
            # Rank 0 knows: it stopped the work, or its own result is as bad.
            print(f"rank {rank}: {type(error).__name__} {error}", file=sys.stderr)


def _listen(waiting: queue.SimpleQueue[dict[str, object]]) -> None:
    """Pass on what comes. At its end rank 0 is gone, and so must this process be, whatever it waits for."""
    # Not sys.stdin, whose lock this thread would hold when the process ends.
    file = io.FileIO(0, closefd=False)
    while (work := read_work(file)) is not None:
        waiting.put(work)
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
