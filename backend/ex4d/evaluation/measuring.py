"""Measures the results of one clip: what does not depend on methods is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ex4d.evaluation.camera_measures import measure_camera
from ex4d.evaluation.clip_scene import ClipInputs, KnownViews
from ex4d.evaluation.clips import Frames, Task
from ex4d.evaluation.feature_measures import i3d_features, inception_features, measure_clip
from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs
from ex4d.evaluation.mask_measures import measure_masks
from ex4d.evaluation.measured_cache import MeasuredCache
from ex4d.evaluation.metrics import METRICS
from ex4d.evaluation.networks import Networks
from ex4d.evaluation.pixel_measures import measure_pixels
from ex4d.evaluation.protocols import Protocol
from ex4d.evaluation.results import Method, doubts
from ex4d.evaluation.seen_measures import measure_seen
from ex4d.evaluation.vbench import figures_of_vbench
from ex4d_core.errors import Ex4dError

Measure = Callable[[ResultInputs, frozenset[str]], dict[str, float]]
# What measures which figures; those that share a solved camera go together.
_MEASURES: tuple[tuple[Measure, frozenset[str]], ...] = (
    (measure_pixels, frozenset(("psnr", "ssim"))),
    (measure_pixels, frozenset(("temporal_error",))),
    (measure_pixels, frozenset(("lpips",))),
    (measure_seen, frozenset(("seen_psnr",))),
    (measure_seen, frozenset(("flicker",))),
    (measure_masks, frozenset(("mask_false", "mask_missed", "mask_specks"))),
    (measure_masks, frozenset(("mask_iou",))),
    (measure_masks, frozenset(("mask_psnr",))),
    (measure_camera, frozenset(("camera_rotation", "camera_translation", "camera_matrix"))),
    (measure_clip, frozenset(("clip_source",))),
    (measure_clip, frozenset(("clip_frames",))),
)
# Why the camera's measure may leave out figures.
_WITHOUT_UNIT = "it moves where it should stand still, by an unknown distance"
FEATURES = {"fid": inception_features, "fvd": i3d_features}
NO_RESULT = "no result"


@dataclass(frozen=True)
class ResultRow:
    """What was measured of one result.

    Attributes:
        method, task, clip, group: whose it is, see `Task`.
        seed: of the task.
        path: of the result; "" where there is none.
        figures: by name, with "/seen" or "/unseen" of regions.
        features: of each metric of sets, the files of the result's and of the reference's features.
        missing: of each metric that could not be measured, why.
        notes: how the result was fitted to the others, and what is suspicious about it.
    """

    method: str
    task: str
    clip: str
    group: str
    seed: int
    path: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    features: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What keeps figures from being whole, in a sentence; "" for nothing."""
        if NO_RESULT in self.missing:
            return f"{self.method}: {self.task}: {self.missing[NO_RESULT]}"
        reasons = dict.fromkeys(f"{reason} ({name})" for name, reason in self.missing.items())
        return f"{self.method}: {self.task}: {'; '.join(reasons)}" if reasons else ""


def measure_results(
    inputs: ClipInputs,
    methods: Sequence[Method],
    protocol: Protocol,
    networks: Networks,
    cache: MeasuredCache,
    device: torch.device,
    vbench: Path,
) -> Iterator[ResultRow]:
    """Yield a row for every task and method of a clip; videos for VBench are written into a folder."""
    for task in inputs.tasks:
        known: KnownViews | None = None
        for method in methods:
            try:
                path = None if task.name in method.failed else method.find(task)
                if path is None:
                    why = method.failed.get(task.name) or f"no result for it in {method.folder}"
                    yield _without_result(method, task, why)
                    continue
                if known is None:
                    known = KnownViews.of(task, inputs.scene, protocol, str(device))
                result = Frames(path, known.size, len(known.source))
                yield _measured(method, task, result, known, protocol, networks, cache, device, vbench)
            except Ex4dError as error:
                yield _without_result(method, task, str(error))


def _without_result(method: Method, task: Task, why: str) -> ResultRow:
    return ResultRow(method.name, task.name, task.clip.name, task.group, task.seed, missing={NO_RESULT: why})


def _measured(
    method: Method,
    task: Task,
    result: Frames,
    known: KnownViews,
    protocol: Protocol,
    networks: Networks,
    cache: MeasuredCache,
    device: torch.device,
    vbench: Path,
) -> ResultRow:
    figures: dict[str, float] = {}
    features: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    masks = method.find_masks(task) if any("masks" in METRICS[name].needs for name in protocol.metrics) else None
    inputs = ResultInputs(
        *(task, result, known.source, known.truth, known.seen, known.render, device, networks),
        rendered=known.rendered,
        masks=None if masks is None else Frames(masks, known.size, len(known.source)),
    )
    for measure, measured in _MEASURES:
        wanted = measured & frozenset(protocol.metrics)
        if not wanted:
            continue
        try:
            found = cache.figures(inputs, measure.__name__, wanted, lambda m=measure, w=wanted: m(inputs, w))
        except (NotMeasuredError, Ex4dError) as error:
            missing |= dict.fromkeys(sorted(wanted), str(error))
            continue
        figures |= found
        absent = wanted - {name.partition("/")[0] for name in found}
        missing |= dict.fromkeys(sorted(absent), _WITHOUT_UNIT)
    reference = known.source if protocol.reference == "source" else known.truth
    for name, extract in FEATURES.items():
        if name not in protocol.metrics:
            continue
        try:
            if reference is None:
                raise NotMeasuredError("the data set has no true view of this clip, which the protocol compares with")
            features[name] = tuple(  # type: ignore[assignment]
                str(cache.features(frames, name, lambda f=frames, e=extract: e(f, networks)))
                for frames in (result, reference)
            )
        except (NotMeasuredError, Ex4dError) as error:
            missing[name] = str(error)
    if "vbench" in protocol.metrics:
        own, why = figures_of_vbench(result, method.name, task.name, known.source.fps, vbench)
        figures |= own
        missing |= {"vbench": why} if why else {}
    moves = task.camera is not None and bool(np.ptp(task.camera.world_to_camera, axis=0).max() > 1e-6)
    notes = (*result.notes, *_other_rate(result, known), *doubts(result, moves))
    return ResultRow(
        *(method.name, task.name, task.clip.name, task.group, task.seed, str(result.path)),
        figures=figures,
        features=features,
        missing=missing,
        notes=notes,
    )


def _other_rate(result: Frames, known: KnownViews) -> Iterator[str]:
    """That a movie says another frame rate than the footage; images say none."""
    if result.states_rate and known.source.states_rate and result.fps != known.source.fps:
        rates = f"{float(result.fps):.6g} frames a second in place of {float(known.source.fps):.6g}"
        yield f"it has {rates}: frames are compared in order, whatever their time"
