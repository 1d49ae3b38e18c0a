"""Draws docs/rooms.svg, the map of the project's rooms, from the imports of its modules.

    .venv/backend/bin/python scripts/draw_rooms.py

A room is a package of its own: `ex4d_core`, `blender_addon`, and each folder of `ex4d`. Modules that lie beside those
folders are one room, "ex4d". An arrow leads from a room to one that it imports; it is left out
where a longer path leads there, too. Modules are parsed, not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "rooms.svg"
PACKAGES = ("ex4d", "ex4d_core", "blender_addon")
# The entry point belongs to the command.
SAME_ROOM = {"ex4d.__main__": "cli"}

BOX_WIDTH, BOX_HEIGHT, PASSAGE_WIDTH, GAP_X, GAP_Y, MARGIN = 132, 40, 12, 20, 52, 20

Rooms = Mapping[str, frozenset[str]]
"""What each room imports."""


@cache
def import_graph() -> grimp.ImportGraph:
    """The imports between all modules of the product, but for those that only a type checker follows."""
    for folder in (str(ROOT), str(ROOT / "backend")):
        if folder not in sys.path:
            sys.path.append(folder)
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


def room_of(module: str, packages: Iterable[str]) -> str:
    """The room that a module is in.

    Args:
        module: its dotted name.
        packages: the folders of `ex4d`, by name.
    """
    if module in SAME_ROOM:
        return SAME_ROOM[module]
    top, _, rest = module.partition(".")
    folder = rest.partition(".")[0]
    return folder if top == "ex4d" and folder in packages else top


def read_rooms() -> Rooms:
    """The rooms, and what each imports of the others."""
    graph = import_graph()
    packages = {name.split(".")[1] for name in graph.modules if name.count(".") > 1 and name.startswith("ex4d.")}
    rooms: dict[str, set[str]] = {}
    for module in graph.modules:
        if module == "ex4d":
            continue  # the package imports lazily, by names that the parser does not see
        room = room_of(module, packages)
        imported = {room_of(one, packages) for one in graph.find_modules_directly_imported_by(module) if one != "ex4d"}
        rooms.setdefault(room, set()).update(imported - {room})
    return {room: frozenset(imported) for room, imported in rooms.items()}


def reachable(rooms: Rooms, start: str) -> set[str]:
    """All rooms below one, over any path."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for room in rooms[waiting.pop()] - found:
            found.add(room)
            waiting.append(room)
    return found


def shortened(rooms: Rooms) -> Rooms:
    """The same rooms without the arrows that a longer way makes needless (the transitive reduction)."""
    below = {room: reachable(rooms, room) for room in rooms}
    return {
        room: frozenset(one for one in imported if not any(one in below[other] for other in imported))
        for room, imported in rooms.items()
    }


@dataclass
class Layout:
    """Where things are drawn, in pixels.

    Attributes:
        rows: from the bottom; a row holds rooms, and in between places where arrows to lower rows pass.
        ways: of each arrow, the rooms and places that it leads through.
    """

    rows: list[list[str]]
    ways: list[list[str]]
    centre: dict[str, tuple[float, float]] = field(default_factory=dict)

    def order(self) -> None:
        """Sort each row by the neighbours in the row below, then above, and again, so that few arrows cross."""
        near = {name: ([], []) for row in self.rows for name in row}
        for way in self.ways:
            for upper, lower in pairwise(way):
                near[upper][0].append(lower)
                near[lower][1].append(upper)
        place = {name: float(index) for row in self.rows for index, name in enumerate(row)}
        for side, rows in [(0, self.rows), (1, self.rows[::-1])] * 4:
            for row in rows:
                centre = (len(row) - 1) / 2
                wanted = {one: _mean([place[other] for other in near[one][side]], place[one]) for one in row}
                row.sort(key=lambda one: (wanted[one], one))
                place.update({one: index - centre for index, one in enumerate(row)})

    def place(self) -> tuple[float, float]:
        """Find all centres; returns the width and height of the whole."""
        widths = [sum(_width(one) + GAP_X for one in row) - GAP_X for row in self.rows]
        for index, (row, width) in enumerate(zip(self.rows[::-1], widths[::-1], strict=True)):
            x = MARGIN + (max(widths) - width) / 2
            for one in row:
                self.centre[one] = (x + _width(one) / 2, MARGIN + BOX_HEIGHT / 2 + index * (BOX_HEIGHT + GAP_Y))
                x += _width(one) + GAP_X
        return 2 * MARGIN + max(widths), 2 * MARGIN + len(self.rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y


def lay_out(rooms: Rooms) -> Layout:
    """Rooms in rows, each as low as what it imports allows, with the ways of the arrows between them.

    Raises:
        graphlib.CycleError: rooms import each other in a circle.
    """
    level: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        level[room] = 1 + max((level[one] for one in rooms[room]), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for room in sorted(rooms):
        rows[level[room]].append(room)
    ways = []
    for room, imported in sorted(shortened(rooms).items()):
        for one in sorted(imported):
            passed = {number: f"{room} > {one} > {number}" for number in range(level[room] - 1, level[one], -1)}
            for number, name in passed.items():
                rows[number].append(name)
            ways.append([room, *passed.values(), one])
    layout = Layout(rows, ways)
    layout.order()
    return layout


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _width(name: str) -> float:
    return PASSAGE_WIDTH if ">" in name else BOX_WIDTH


def draw(rooms: Rooms) -> str:
    """The map as SVG, the rooms that import most at the top.

    Raises:
        graphlib.CycleError: rooms import each other in a circle.
    """
    layout = lay_out(rooms)
    width, height = layout.place()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" '
        'font-size="15" role="img">',
        "<title>The rooms of the project; an arrow leads from a room to one that it imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5a6b7b"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#f6f8fa"/>',
    ]
    half = BOX_HEIGHT / 2
    for way in layout.ways:
        x, y = layout.centre[way[0]]
        path = f"M{x:g} {y + half:g}"
        for one in way[1:]:
            to_x, to_y = layout.centre[one]
            bend = to_y - half - GAP_Y / 2
            path += f"C{x:g} {bend:g} {to_x:g} {bend:g} {to_x:g} {to_y - half:g}"
            path += f"V{to_y + half:g}" if one != way[-1] else ""
            x = to_x
        lines.append(f'<path d="{path}" fill="none" stroke="#5a6b7b" stroke-width="1.3" marker-end="url(#tip)"/>')
    for room in sorted(rooms):
        x, y = layout.centre[room]
        lines.append(
            f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y - half:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
            'fill="#ffffff" stroke="#31465a"/>'
        )
        lines.append(f'<text x="{x:g}" y="{y + 5:g}" text-anchor="middle" fill="#1b2733">{escape(room)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(draw(read_rooms()), encoding="utf-8")
    print(TARGET.relative_to(ROOT))
