"""The report as one HTML page that needs nothing else: the table, then clips side by side, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.metrics import METRICS, metric_of
from ex4d.evaluation.page_videos import LONGEST_SIDE, MOST_FRAMES, video_data
from ex4d.evaluation.report_files import best_of, cell, column_names, heading, number, write_text
from ex4d.evaluation.run import Evaluation
from ex4d.media import MediaError

# A page of all clips of a large data set would be larger than browsers and memory take.
SHOWN_CASES = 24
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
    for heading_, texts in (("What is missing", evaluation.problems), ("What to mind", evaluation.remarks)):
        if texts:
            yield f'<div class="problems"><h2>{heading_}</h2><ul>'
            yield from (f"<li>{escape(text)}</li>" for text in texts)
            yield "</ul></div>"
    tasks = worst_first(evaluation.rows, evaluation.protocol.metrics)
    yield f"<h2>Results, worst first</h2><p>{_what_is_shown(len(tasks))}"
    for place, task in enumerate(tasks):
        rows = [row for row in evaluation.rows if row.task == task]
        yield from _case(task, rows, sources, with_videos=place < SHOWN_CASES)
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


def _what_is_shown(tasks: int) -> str:
    videos = f"Videos are small copies of at most {LONGEST_SIDE} pixels and {MOST_FRAMES} frames"
    return f"{videos}." if tasks <= SHOWN_CASES else f"{videos}, of the worst {SHOWN_CASES} of {tasks}."


def _case(task: str, rows: list[ResultRow], sources: dict[str, Path], *, with_videos: bool) -> Iterator[str]:
    yield f'<section class="case"><h3>{escape(task)}</h3><div class="videos">'
    if with_videos and rows[0].clip in sources:
        yield _video(sources[rows[0].clip], "what is known")
    for row in rows:
        figures = ", ".join(
            f"{METRICS[name].title} {number(value)}" for name, value in row.figures.items() if metric_of(name) == name
        )
        yield _video(Path(row.path) if with_videos and row.path else None, f"{row.method}: {figures or row.problem}")
    yield "</div></section>"


def _video(path: Path | None, caption: str) -> str:
    try:
        shown = "" if path is None else f'<video controls loop muted playsinline src="{video_data(path)}"></video>'
    except MediaError as error:
        shown, caption = "", f"{caption} ({error})"
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"
