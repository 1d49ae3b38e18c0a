"""Every text of the interface can be translated: Blender's own tools find it in the source, as it is shown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import blender_addon

SOURCES = sorted(Path(blender_addon.__file__).parent.rglob("*.py"))
# What takes a text for people, and translates it by itself where it is a plain literal.
SHOWING = {"label", "operator", "prop", "progress", "menu", "report", "status_text_set", "draw_text", "_tell", "row"}
TRANSLATING = {"iface_", "report_"}
WORD = re.compile(r"[A-Za-z]{3,}")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""), node


def words_in_a_mixed_text(node: ast.AST) -> list[str]:
    """Words of our own in f-strings, which no translation can be looked up for."""
    if isinstance(node, ast.Call) and calls_name(node) in {*TRANSLATING, "format"}:
        return [word for inner in ast.iter_child_nodes(node) for word in words_in_a_mixed_text(inner)]
    if isinstance(node, ast.JoinedStr):
        plain = " ".join(part.value for part in node.values if isinstance(part, ast.Constant))
        return WORD.findall(plain)
    return [word for inner in ast.iter_child_nodes(node) for word in words_in_a_mixed_text(inner)]


def calls_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_no_text_is_put_together_before_it_is_translated():
    for path in SOURCES:
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name in SHOWING | TRANSLATING:
                shown = [*call.args, *(one.value for one in call.keywords if one.arg in ("text", "placeholder"))]
                mixed = [word for one in shown for word in words_in_a_mixed_text(one)]
                assert not mixed, f"{path.name}:{call.lineno} mixes {mixed} with values; translate, then format"


def test_reasons_for_grey_buttons_are_translated():
    """Blender shows these as they are."""
    for path in SOURCES:
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name == "poll_message_set":
                said = call.args[0]
                translated = isinstance(said, ast.Call) and calls_name(said) == "iface_"
                assert translated, f"{path.name}:{call.lineno} says {ast.unparse(said)}"
