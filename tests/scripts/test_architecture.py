"""The layers of the house: imports point down, nothing imports in a circle, and the map in docs/ shows it as it is."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

pytest.importorskip("grimp", reason="reading imports needs the project's own environment, .venv/backend")
import draw_rooms

# From the top. Rooms of one layer may import each other, as long as there is no circle.
LAYERS = [
    {"cli"},
    {"training"},
    {"service", "demo", "evaluation"},
    {"pipeline"},
    {"generation", "raster"},
    {"mesh"},
    {"depth", "media", "weights"},
    {"ex4d", "addon"},
    {"ex4d_core"},
]
LEVEL = {room: len(LAYERS) - number for number, layer in enumerate(LAYERS) for room in layer}


@pytest.fixture(scope="module")
def rooms() -> draw_rooms.Rooms:
    return draw_rooms.read_rooms()


def circle_of(imports) -> list[str]:
    """The names of one circle; empty without any."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_a_circle_would_be_found():
    assert set(circle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}


def test_no_modules_import_each_other_in_a_circle():
    graph = draw_rooms.import_graph()
    assert len(graph.modules) > 100
    assert circle_of({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}) == []


def test_there_are_at_most_16_rooms_and_no_circles_between_them(rooms):
    assert circle_of(rooms) == []
    assert len(rooms) <= 16


def test_imports_between_rooms_point_down(rooms):
    assert set(rooms) - {"blender_addon"} <= set(LEVEL), "a new room needs its place among the layers"
    upward = [
        f"{room} imports {one}"
        for room in set(rooms) - {"blender_addon"}
        for one in rooms[room] - {"blender_addon"}
        if LEVEL[one] > LEVEL[room]
    ]
    assert upward == []


def test_the_add_on_knows_only_the_core(rooms):
    assert rooms["blender_addon"] == {"ex4d_core"}
    # What the demo runs inside Blender is the only part of the backend that knows the add-on.
    assert {room for room, imported in rooms.items() if "blender_addon" in imported} <= {"demo"}


@pytest.mark.parametrize("foreign", ["torch", "bpy", "ex4d"])
def test_the_core_needs_neither_torch_nor_blender(foreign):
    core = Path(draw_rooms.ROOT / "ex4d_core")
    users = [
        path.name
        for path in core.rglob("*.py")
        if re.search(rf"^\s*(import|from) {foreign}\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert users == []


def test_the_map_in_the_documentation_is_up_to_date(rooms):
    drawn = draw_rooms.draw(rooms)
    assert draw_rooms.TARGET.read_text(encoding="utf-8") == drawn, "run scripts/draw_rooms.py"
    for room in rooms:
        assert f">{room}</text>" in drawn


def test_only_files_with_kernels_are_left_out_of_the_type_check():
    tomllib = pytest.importorskip("tomllib", reason="Python has it from 3.11 on")
    settings = tomllib.loads((draw_rooms.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pyright"]
    assert settings["typeCheckingMode"] == "standard"
    excluded = [name for name in settings["exclude"] if not name.startswith("**")]
    assert len(excluded) > 5
    for name in excluded:
        text = (draw_rooms.ROOT / name).read_text(encoding="utf-8")
        assert re.search(r"@(wp\.(kernel|func)|triton\.jit)", text), name
