"""The program of ranks 1 and up: `python -m ex4d.generation.wan.parallel.rank RANK SIZE DEVICE STORE`.

`RankProcesses` starts and ends it. It reads `WindowWork` from standard input, and ends when that ends.
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

from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.loaded_networks import networks_for
from ex4d.generation.wan.parallel.group import RankLostError, SequenceParallelGroup
from ex4d.generation.wan.parallel.processes import WindowWork, read_work, report_failure


def main(rank: int, size: int, device: str, store: Path) -> None:
    """Run this rank's part of every window; report any failure to rank 0, and end this process."""
    try:
        _run(rank, size, device, store)
    # Weights, GPUs and other ranks may raise anything, and rank 0 waits for this one.
    except BaseException as error:
        if not isinstance(error, RankLostError):
            traceback.print_exc()
        report_failure(error, store.parent, rank)
        # An orderly exit would wait for exchanges with other GPUs.
        os._exit(1)


def _run(rank: int, size: int, device: str, store: Path) -> None:
    received: queue.SimpleQueue[WindowWork] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(received,), daemon=True).start()
    group = SequenceParallelGroup(rank, size, torch.device(device), store)
    while True:
        work = received.get()
        networks = networks_for(replace(work.choice, device=device, further_devices=()))
        networks.choose_mode(work.noise.shape[2:], work.mode)
        try:
            denoise(
                networks.transformer,
                work.noise.to(networks.device),
                work.conditioning.to(networks.device),
                work.settings,
                precision=networks.precision,
                group=group,
            )
        except GenerationError as error:
            # Rank 0 knows: it stopped the work, or its own result is as bad.
            print(f"rank {rank}: {error}", file=sys.stderr)


def _receive(received: queue.SimpleQueue[WindowWork]) -> None:
    """Queue all work from standard input; when that ends, rank 0 has ended, and this process must not wait for it."""
    # Not sys.stdin, whose lock this thread would hold when the process ends.
    file = io.BufferedReader(io.FileIO(0, closefd=False))
    while (work := read_work(file)) is not None:
        received.put(work)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
