"""From rows to a table: means with confidence intervals, and the metrics of whole sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ex4d.evaluation.feature_measures import FEW_SAMPLES, frechet_distance, video_distance
from ex4d.evaluation.inputs import NotMeasuredError
from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.metrics import METRICS, metric_of
from ex4d.evaluation.protocols import Protocol

CONFIDENCE = 0.95
_RESAMPLES, _SEED = 9999, 0
# Of metrics of sets, how two sets of features are compared.
_DISTANCES = {"fid": frechet_distance, "fvd": video_distance}


@dataclass(frozen=True)
class Figure:
    """One cell of the table.

    Attributes:
        value: a mean over results, or a metric of the set.
        low, high: its confidence interval; None for metrics of sets, and of a single result.
        count: results, or samples of the smaller set.
        remark: what to mind of it; "" for nothing.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int = 1
    remark: str = ""


@dataclass(frozen=True)
class TableRow:
    """One method in one range of the protocol ("" without ranges).

    Attributes:
        figures: by name.
        missing: of each metric that the whole row lacks, why.
        results: measured ones; `expected` is how many there should be.
    """

    method: str
    group: str
    figures: dict[str, Figure]
    missing: dict[str, str]
    results: int
    expected: int


def table_of(rows: Sequence[ResultRow], protocol: Protocol) -> list[TableRow]:
    """The table's rows: methods within ranges, in the order in which they were given."""
    keys = dict.fromkeys((row.group, row.method) for row in rows)
    return [
        _table_row(method, group, [row for row in rows if (row.group, row.method) == (group, method)], protocol)
        for group, method in keys
    ]


def mean_with_interval(values: Sequence[float]) -> Figure:
    """Mean, and the interval of the bootstrap (bias-corrected and accelerated), which assumes no distribution."""
    from scipy.stats import bootstrap

    sample = np.asarray(values, np.float64)
    mean = float(sample.mean())
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Figure(mean, count=len(sample))
    # Of few values the acceleration cannot be told; then percentiles alone are taken.
    method = "BCa" if len(sample) > 4 else "percentile"
    how = {"confidence_level": CONFIDENCE, "n_resamples": _RESAMPLES, "rng": np.random.default_rng(_SEED)}
    found = bootstrap((sample,), np.mean, method=method, **how).confidence_interval
    return Figure(mean, float(found.low), float(found.high), len(sample))


def _table_row(method: str, group: str, rows: list[ResultRow], protocol: Protocol) -> TableRow:
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    for name in _names(rows):
        figures[name] = mean_with_interval([row.figures[name] for row in rows if name in row.figures])
    for name in protocol.metrics:
        if METRICS[name].of_sets:
            try:
                figures[name] = _of_sets(name, rows)
            except NotMeasuredError as error:
                missing[name] = str(error)
        elif not any(metric_of(figure) == name for figure in figures):
            reasons = dict.fromkeys(row.missing[name] for row in rows if name in row.missing)
            missing[name] = "; ".join(reasons) or "no results"
    return TableRow(method, group, figures, missing, sum(bool(row.path) for row in rows), len(rows))


def _names(rows: Iterable[ResultRow]) -> list[str]:
    """Of all figures, in the metrics' order: a metric, then its regions or dimensions."""
    found = sorted({name for row in rows for name in row.figures})
    return [name for metric in METRICS for name in found if metric_of(name) == metric]


def _of_sets(name: str, rows: list[ResultRow]) -> Figure:
    pairs = dict.fromkeys(row.features[name] for row in rows if name in row.features)
    if not pairs:
        reasons = dict.fromkeys(row.missing[name] for row in rows if name in row.missing)
        raise NotMeasuredError("; ".join(reasons) or "no results")
    made = np.concatenate([np.load(one) for one, _ in pairs])
    reference = np.concatenate([np.load(one) for one in dict.fromkeys(other for _, other in pairs)])
    count = min(len(made), len(reference))
    remark = f"of {count} samples only; figures are comparable between sets of one size" if count < FEW_SAMPLES else ""
    return Figure(_DISTANCES[name](made, reference), count=count, remark=remark)
