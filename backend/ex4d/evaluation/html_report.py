"""The report as one HTML page that needs nothing else: the table, then all clips side by side, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.metrics import METRICS, metric_of
from ex4d.evaluation.page_videos import video_data
from ex4d.evaluation.report_files import best_of, cell, column_names, heading, number, write_text
from ex4d.evaluation.run import Evaluation
from ex4d.media import MediaError

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.best { font-weight: 700; }
.interval { display: block; font-size: .8em; opacity: .7; }
.case { border-top: 1px solid #8884; margin-top: 1.5rem; }
.videos { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; }
video { display: block; max-width: 20rem; width: 100%; }
figcaption { font-size: .85em; max-width: 20rem; }
.problems { border-left: 4px solid #c60; padding-left: 1rem; }
"""
_TOGETHER = """
for (const row of document.querySelectorAll(".videos")) {
  const videos = [...row.querySelectorAll("video")];
  videos.forEach(video => video.addEventListener("play", () =>
    videos.forEach(other => { if (other !== video) { other.currentTime = video.currentTime; other.play(); } })));
  videos.forEach(video => video.addEventListener("pause", () => videos.forEach(other => other.pause())));
}
"""


def write_html(evaluation: Evaluation, path: Path, sources: dict[str, Path]) -> None:
    """Write the page.

    Args:
        sources: of each clip by name, what is shown before the results: the truth, or the footage.
    """
    write_text(path, "\n".join(_page(evaluation, sources)) + "\n")


def worst_first(rows: tuple[ResultRow, ...], metrics: tuple[str, ...]) -> list[str]:
    """The tasks, by the first of the metrics that any result has: worst mean over methods first."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    name = next((one for one in metrics if any(one in row.figures for row in rows)), None)
    if name is None:
        return tasks
    sign = 1 if METRICS[name].higher_is_better else -1

    def goodness(task: str) -> float:
        values = [row.figures[name] for row in rows if row.task == task and name in row.figures]
        return sign * sum(values) / len(values) if values else float("-inf")

    return sorted(tasks, key=goodness)


def _page(evaluation: Evaluation, sources: dict[str, Path]) -> Iterator[str]:
    title = escape(f"{evaluation.protocol.title}: {evaluation.dataset.name}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1>"
    yield from _table(evaluation)
    if evaluation.problems:
        yield '<div class="problems"><h2>What is missing</h2><ul>'
        yield from (f"<li>{escape(problem)}</li>" for problem in evaluation.problems)
        yield "</ul></div>"
    yield "<h2>Results, worst first</h2>"
    for task in worst_first(evaluation.rows, evaluation.protocol.metrics):
        yield from _case(task, [row for row in evaluation.rows if row.task == task], sources)
    yield f"<script>{_TOGETHER}</script></html>"


def _table(evaluation: Evaluation) -> Iterator[str]:
    names = column_names(evaluation)
    best = best_of(evaluation.table, names)
    yield "<table><tr><th>method<th>range<th>results" + "".join(f"<th>{escape(heading(name))}" for name in names)
    for row in evaluation.table:
        cells = []
        for name in names:
            value, _, interval = cell(row, name).partition(" ")
            marked = ' class="best"' if (row.group, row.method) in best[name] else ""
            cells.append(f'<td{marked}>{value}<span class="interval">{interval}</span>')
        counted = f"{row.results} of {row.expected}"
        yield f"<tr><td>{escape(row.method)}<td>{escape(row.group)}<td>{counted}{''.join(cells)}"
    yield "</table><dl>"
    for name in evaluation.protocol.metrics:
        yield f"<dt>{METRICS[name].title}<dd>{escape(METRICS[name].meaning)}"
    yield "</dl>"


def _case(task: str, rows: list[ResultRow], sources: dict[str, Path]) -> Iterator[str]:
    yield f'<section class="case"><h3>{escape(task)}</h3><div class="videos">'
    if rows[0].clip in sources:
        yield _video(sources[rows[0].clip], "what is known")
    for row in rows:
        figures = ", ".join(
            f"{METRICS[name].title} {number(value)}" for name, value in row.figures.items() if metric_of(name) == name
        )
        yield _video(Path(row.path) if row.path else None, f"{row.method}: {figures or row.problem}")
    yield "</div></section>"


def _video(path: Path | None, caption: str) -> str:
    try:
        shown = "" if path is None else f'<video controls loop muted playsinline src="{video_data(path)}"></video>'
    except MediaError as error:
        shown, caption = "", f"{caption} ({error})"
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"
