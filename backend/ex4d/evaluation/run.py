"""`evaluate`: a data set and methods' results to a table, over one device or several, again after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from ex4d.evaluation.clip_scene import ClipInputs
from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets import load_clips
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.measured_cache import MeasuredCache
from ex4d.evaluation.measuring import NO_RESULT, ResultRow, measure_results
from ex4d.evaluation.metrics import METRICS, metric_of
from ex4d.evaluation.networks import Networks
from ex4d.evaluation.protocols import Protocol
from ex4d.evaluation.results import Method
from ex4d.evaluation.summary import TableRow, table_of
from ex4d.machine import MachineSettings
from ex4d.progress import Progress, ignore_progress
from ex4d_core.errors import Ex4dError

STAGE = "measure"
_NAMED = 3  # results that a sentence names


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        dataset, layout: what was evaluated on.
        protocol: how.
        clips: of the data set.
        rows: one a method and task.
        table: the means.
    """

    dataset: Path
    layout: str
    protocol: Protocol
    clips: tuple[EvaluationClip, ...]
    rows: tuple[ResultRow, ...]
    table: tuple[TableRow, ...]

    @property
    def problems(self) -> list[str]:
        """Everything that keeps the table from being whole: a sentence a reason, with the results that have it."""
        affected: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for name, why in row.missing.items():
                affected.setdefault((name, why), []).append(f"{row.method}/{row.task}")
        for row in self.table:
            for name, why in row.missing.items():
                if METRICS[name].of_sets and row.results and not any((name, why) == one for one in affected):
                    affected.setdefault((name, why), []).append(f"{row.method}/{row.group}".rstrip("/"))
        return [
            f"{METRICS[name].title if name in METRICS else name}: {why} ({_named(results, len(self.rows))})"
            for (name, why), results in affected.items()
        ]

    @property
    def remarks(self) -> list[str]:
        """What was measured, but not as it should be: fitted or suspicious results, and sets of few samples."""
        affected: dict[str, list[str]] = {}
        for row in self.rows:
            for text in row.notes:
                affected.setdefault(text, []).append(f"{row.method}/{row.task}")
        for row in self.table:
            for name, figure in row.figures.items():
                if figure.remark:
                    text = f"{METRICS[metric_of(name)].title}: {figure.remark}"
                    affected.setdefault(text, []).append(f"{row.method}/{row.group}".rstrip("/"))
        return [f"{text} ({_named(results, len(self.rows))})" for text, results in affected.items()]


def _named(results: Sequence[str], of: int) -> str:
    if len(results) == of and of > 1:
        return "all results"
    more = f" and {len(results) - _NAMED} more" if len(results) > _NAMED else ""
    return ", ".join(results[:_NAMED]) + more


@dataclass(frozen=True)
class _Job:
    """What a worker needs to measure any clip."""

    protocol: Protocol
    methods: tuple[Method, ...]
    work: Path
    models: Path

    def rows(self, clip: EvaluationClip, networks: Networks, device: torch.device) -> list[ResultRow]:
        """Of one clip; what is wrong with it is in them."""
        cache = MeasuredCache(self.work / "measured")
        try:
            inputs = ClipInputs.prepare(clip, self.protocol, self.work, str(device))
            how = (self.protocol, networks, cache, device, self.work / "vbench")
            return list(measure_results(inputs, self.methods, *how))
        except Ex4dError as error:
            return [
                ResultRow(method.name, clip.name, clip.name, "", 0, missing={NO_RESULT: str(error)})
                for method in self.methods
            ]


def evaluate(
    dataset: Path,
    methods: Sequence[Method],
    protocol: Protocol,
    work: Path,
    *,
    layout: str | None = None,
    devices: Sequence[str] = ("cpu",),
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Measure methods' results on a data set.

    Args:
        dataset: a folder; see `ex4d.evaluation.datasets`.
        methods: whose results; with none, there is nothing to measure.
        work: a folder for scenes, for what is made of the data set's files, and for what was measured, which the next
            evaluation takes up.
        layout: of the data set; None finds it.
        devices: "cpu", or "cuda:0" and so on; one process each.
        machine: whose weights are used.
        progress: called with `STAGE`, clips done, and clips in all.
        note: called with sentences about the evaluation as a whole.

    Raises:
        EvaluationError: the data set, the methods or the protocol cannot be used.
    """
    if not methods:
        raise EvaluationError("there are no results to measure: give --results NAME=FOLDER")
    twice = [one.name for one in methods if [other.name for other in methods].count(one.name) > 1]
    if twice:
        raise EvaluationError(f"two methods are called {twice[0]}")
    found, clips = load_clips(dataset, work, layout)
    machine = machine or MachineSettings.from_environment()
    for text in protocol.open:
        note(f"{protocol.title} leave open {text}")
    job = _Job(protocol, tuple(methods), work, machine.models)
    rows: dict[str, list[ResultRow]] = {}
    progress(STAGE, 0, len(clips))
    for name, measured in _all_rows(job, clips, devices):
        rows[name] = measured
        progress(STAGE, len(rows), len(clips))
    ordered = [row for clip in clips for row in rows[clip.name]]
    return Evaluation(dataset, found.name, protocol, tuple(clips), tuple(ordered), tuple(table_of(ordered, protocol)))


def _all_rows(
    job: _Job, clips: Sequence[EvaluationClip], devices: Sequence[str]
) -> Iterator[tuple[str, list[ResultRow]]]:
    if len(devices) == 1:
        device = torch.device(devices[0])
        networks = Networks(job.models, device)
        for clip in clips:
            yield clip.name, job.rows(clip, networks, device)
        return
    context = get_context("spawn")
    free: Queue[str] = context.Queue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), mp_context=context, initializer=_take_device, initargs=(free,)) as pool:
        waiting = {pool.submit(partial(_rows_in_worker, job), clip): clip for clip in clips}
        for done in as_completed(waiting):
            yield waiting[done].name, done.result()


class _Worker:
    """A worker process's own device, and the networks on it."""

    device = torch.device("cpu")
    networks: Networks | None = None


def _take_device(free: Queue[str]) -> None:
    _Worker.device = torch.device(free.get())


def _rows_in_worker(job: _Job, clip: EvaluationClip) -> list[ResultRow]:
    if _Worker.networks is None:
        _Worker.networks = Networks(job.models, _Worker.device)
    return job.rows(clip, _Worker.networks, _Worker.device)
