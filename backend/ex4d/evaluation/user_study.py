"""A page for people who judge: two results of one task side by side, blind; answers as CSV.

Which pairs are shown is the same for everybody; their order and sides are drawn again whenever the page is opened.

The page stands alone and sends nothing: whoever answers saves a file, and `count_votes` counts the files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np

from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.page_videos import video_data
from ex4d.evaluation.report_files import write_text
from ex4d.evaluation.run import Evaluation

COLUMNS = ("task", "left", "right", "choice")
CHOICES = ("left", "right", "same")
_QUESTION = "Which video looks more like it was filmed by a real camera?"


@dataclass(frozen=True)
class Pair:
    """Two results of one task, as they are shown.

    Attributes:
        task: of both.
        left, right: methods.
        left_path, right_path: of their results.
    """

    task: str
    left: str
    right: str
    left_path: Path
    right_path: Path


@dataclass(frozen=True)
class Votes:
    """How often a method was preferred.

    Attributes:
        wins, ties, shown: counted over its pairs; a tie counts as half a win in `share`.
    """

    wins: int = 0
    ties: int = 0
    shown: int = 0

    @property
    def share(self) -> float:
        """Of its pairs, 0 to 1."""
        return (self.wins + self.ties / 2) / self.shown if self.shown else 0.0


def pairs_of(rows: Sequence[ResultRow], *, seed: int = 0, most: int = 40) -> list[Pair]:
    """Pairs of methods with results of one task, in random order with random sides.

    Args:
        most: pairs of one page; a random choice of them where there are more.
    """
    generator = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for task in dict.fromkeys(row.task for row in rows):
        there = [row for row in rows if row.task == task and row.path]
        for pair in combinations(there, 2):
            left, right = pair if generator.integers(2) else pair[::-1]
            pairs.append(Pair(task, left.method, right.method, Path(left.path), Path(right.path)))
    return [pairs[place] for place in generator.permutation(len(pairs))[:most]]


def write_study(evaluation: Evaluation, path: Path, *, seed: int = 0, most: int = 40) -> int:
    """Write the page; returns how many pairs it has.

    Raises:
        EvaluationError: no task has results of two methods.
        MediaError: a result cannot be read.
    """
    pairs = pairs_of(evaluation.rows, seed=seed, most=most)
    if not pairs:
        raise EvaluationError("a study compares two methods: no task has results of two")
    write_text(path, study_page(pairs))
    return len(pairs)


def study_page(pairs: Sequence[Pair]) -> str:
    """The page of these pairs.

    Raises:
        MediaError: a result cannot be read.
    """
    return "\n".join(_page(pairs)) + "\n"


def count_votes(files: Iterable[Path]) -> dict[str, Votes]:
    """Count the answers of all files, by method.

    Raises:
        EvaluationError: a file is not one that the page saved.
    """
    votes: dict[str, Votes] = {}
    for file in files:
        try:
            with file.open(newline="", encoding="utf-8") as stream:
                answers = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EvaluationError(f"cannot read the answers in {file}: {error}") from error
        for answer in answers:
            if set(answer) != set(COLUMNS) or answer["choice"] not in CHOICES:
                raise EvaluationError(f"{file} is not a file that the page saves: expected {','.join(COLUMNS)}")
            for side in ("left", "right"):
                known = votes.get(answer[side], Votes())
                votes[answer[side]] = Votes(
                    known.wins + (answer["choice"] == side), known.ties + (answer["choice"] == "same"), known.shown + 1
                )
    return votes


def _page(pairs: Sequence[Pair]) -> Iterator[str]:
    # The names are not visible text, yet in the file: the answers need them.
    names = json.dumps([[pair.task, pair.left, pair.right] for pair in pairs]).replace("<", "\\u003c")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Study</title><style>{_STYLE}</style>'
    yield f"<h1>{escape(_QUESTION)}</h1>"
    for number, pair in enumerate(pairs):
        yield f'<section hidden data-pair="{number}"><p class="count"></p><div class="videos">'
        for path in (pair.left_path, pair.right_path):
            yield f'<video autoplay loop muted playsinline controls src="{video_data(path, 480)}"></video>'
        yield "</div><p>" + " ".join(
            f'<button data-choice="{choice}">{label}</button>'
            for choice, label in zip(CHOICES, ("Left", "Right", "Both alike"), strict=True)
        )
        yield "</section>"
    yield '<section hidden id="end"><p>Thank you.</p><p><a download="answers.csv">Save the answers</a></section>'
    yield f"<script>const pairs = {names}, columns = {json.dumps(COLUMNS)};{_SCRIPT}</script></html>"


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; }
.videos { display: flex; gap: 1rem; }
video { flex: 1; min-width: 0; }
button { font: inherit; padding: .5rem 1.5rem; }
"""
_SCRIPT = """
const answers = [];
const quoted = text => '"' + String(text).replaceAll('"', '""') + '"';
// Fisher and Yates: neither fatigue nor habit favours a pair or a side.
const order = pairs.map((_, number) => number);
for (let last = order.length - 1; last > 0; last--) {
  const other = Math.floor(Math.random() * (last + 1));
  [order[last], order[other]] = [order[other], order[last]];
}
const end = document.getElementById("end");
const sections = order.map(number => document.querySelector(`section[data-pair="${number}"]`));
sections.forEach((section, place) => {
  const [task, left, right] = pairs[order[place]];
  const swapped = Math.random() < 0.5;
  if (swapped) {
    const videos = section.querySelector(".videos");
    videos.append(videos.children[0]);
  }
  section.querySelector(".count").textContent = `${place + 1} of ${sections.length}`;
  for (const button of section.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      answers.push([task, ...(swapped ? [right, left] : [left, right]), button.dataset.choice]);
      section.hidden = true;
      const next = sections[place + 1] || end;
      next.hidden = false;
      if (next === end) {
        const lines = [columns, ...answers].map(row => row.map(quoted).join(","));
        const file = new Blob([lines.join("\\r\\n") + "\\r\\n"], {type: "text/csv"});
        end.querySelector("a").href = URL.createObjectURL(file);
      }
    });
  }
});
sections[0].hidden = false;
"""
