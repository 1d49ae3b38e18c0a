"""An evaluation as files: everything as JSON, and the table as Markdown."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ex4d.evaluation.metrics import METRICS, metric_of, title_of
from ex4d.evaluation.run import Evaluation
from ex4d.evaluation.summary import CONFIDENCE, Figure, TableRow
from ex4d.media.media_errors import atomic_write
from ex4d_core import __version__


def document(evaluation: Evaluation) -> dict[str, Any]:
    """All of it, in JSON's types."""
    return {
        "ex4d": __version__,
        "dataset": str(evaluation.dataset),
        "layout": evaluation.layout,
        "protocol": asdict(evaluation.protocol),
        "metrics": {name: METRICS[name].meaning for name in evaluation.protocol.metrics},
        "confidence": CONFIDENCE,
        "table": [asdict(row) for row in evaluation.table],
        "results": [asdict(row) for row in evaluation.rows],
        "problems": evaluation.problems,
        "remarks": evaluation.remarks,
    }


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write `document` to a file, replacing it."""
    write_text(path, json.dumps(document(evaluation), indent=1, ensure_ascii=False) + "\n")


def write_markdown(evaluation: Evaluation, path: Path) -> None:
    """Write the table, what it means, and what is missing."""
    write_text(path, markdown(evaluation))


def markdown(evaluation: Evaluation) -> str:
    """The report as Markdown."""
    protocol = evaluation.protocol
    names = column_names(evaluation)
    lines = [f"# {protocol.title}: {evaluation.dataset.name}", ""]
    lines += [
        f"Data set `{evaluation.dataset.name}` ({evaluation.layout}), protocol `{protocol.name}`, ex4d {__version__}. "
    ]
    lines[-1] += f"Means over results, with intervals of {100 * CONFIDENCE:.0f} % (bootstrap)."
    lines += ["", "| method | range | results | " + " | ".join(map(heading, names)) + " |"]
    lines += ["|---|---|---|" + "---|" * len(names)]
    best = best_of(evaluation.table, names)
    for row in evaluation.table:
        cells = [cell(row, name, bold=(row.group, row.method) in best[name]) for name in names]
        lines.append(f"| {row.method} | {row.group} | {row.results} of {row.expected} | " + " | ".join(cells) + " |")
    lines += ["", "## What the columns are", ""]
    lines += [f"- **{METRICS[name].title}**: {METRICS[name].meaning}" for name in protocol.metrics]
    for title, sentences in (
        ("What the protocol leaves open", protocol.open),
        ("What is missing", evaluation.problems),
        ("What to mind", evaluation.remarks),
    ):
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {sentence}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def column_names(evaluation: Evaluation) -> list[str]:
    """Of all figures that any row has, metrics in the protocol's order."""
    found = dict.fromkeys(name for row in evaluation.table for name in row.figures)
    order = evaluation.protocol.metrics
    return sorted(found, key=lambda name: (order.index(metric_of(name)), name))


def heading(name: str) -> str:
    """A column's title, with the direction that is better, and the unit."""
    metric = METRICS[metric_of(name)]
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{title_of(name)}{unit} {'↑' if metric.higher_is_better else '↓'}"


def cell(row: TableRow, name: str, *, bold: bool = False) -> str:
    """A figure with its interval; a dash where it is missing."""
    figure = row.figures.get(name)
    if figure is None:
        return "–"
    text = number(figure.value)
    text = f"**{text}**" if bold else text
    return (
        text if figure.low is None or figure.high is None else f"{text} ({number(figure.low)} to {number(figure.high)})"
    )


def number(value: float) -> str:
    """To four digits."""
    return f"{value:.4g}" if math.isfinite(value) else "–"


def best_of(table: tuple[TableRow, ...], names: list[str]) -> dict[str, set[tuple[str, str]]]:
    """Of each column, the rows (range, method) that are best in their range; none where there is no other."""
    best: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for name in names:
        sign = 1 if METRICS[metric_of(name)].higher_is_better else -1
        for group in dict.fromkeys(row.group for row in table):
            figures: dict[str, Figure] = {
                row.method: row.figures[name] for row in table if row.group == group and name in row.figures
            }
            if len(figures) > 1:
                top = max(sign * figure.value for figure in figures.values())
                best[name] |= {(group, method) for method, one in figures.items() if sign * one.value == top}
    return best


def write_text(path: Path, text: str) -> None:
    """Write a report, which is there whole or as it was."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
