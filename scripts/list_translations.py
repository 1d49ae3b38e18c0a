"""Lists the texts of the add-on's interface that a catalogue lacks, has in excess, or has with other placeholders.

    .venv/blender-5.0/bin/python scripts/list_translations.py            # the counts of every catalogue
    .venv/blender-5.0/bin/python scripts/list_translations.py it_IT      # also each text, ready to paste as JSON

Names, descriptions and items come from the registered classes and properties, as Blender shows them; labels, messages
and other literals from the source.
"""

from __future__ import annotations

import argparse
import ast
import json
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bpy  # noqa: E402

import blender_addon  # noqa: E402
from blender_addon import translations  # noqa: E402
from ex4d_core.remote_job import JobState  # noqa: E402

# Functions of `bpy.app.translations` under the names that the add-on gives them; their first argument is a text.
MARKING = {"iface_", "mark_", "report_"}
# Keywords by which Blender's layouts take texts, which they translate themselves.
SHOWN_KEYWORDS = {"text", "heading", "placeholder"}
# Methods that take a text by position: the index of the text.
SHOWN_POSITIONS = {"report": 1, "popup_menu": 1}
Placeholders = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Difference:
    """Where a catalogue differs from the source; English texts."""

    missing: list[str]
    excess: list[str]
    placeholders: list[str]


def texts_of_interface() -> set[str]:
    """Every English text that a catalogue must have. The add-on must be registered."""
    sources = sorted(Path(blender_addon.__file__).parent.rglob("*.py"))
    found = {text for path in sources for text in _literals(ast.parse(path.read_text(encoding="utf-8")))}
    found |= {*_registered_texts(), *(state.value for state in JobState)}
    return {text for text in found if any(letter.isalpha() for letter in text)}


def compare(catalogue: dict[str, dict[str, str]], texts: set[str]) -> Difference:
    """Compare a catalogue, as its file has it, with the texts of the interface."""
    translated = catalogue.get("*", {})
    pairs = [pair for messages in catalogue.values() for pair in messages.items()]
    return Difference(
        missing=sorted(texts - translated.keys()),
        excess=sorted({english for english, _ in pairs} - texts),
        placeholders=sorted({english for english, other in pairs if _placeholders(english) != _placeholders(other)}),
    )


def _placeholders(text: str) -> Placeholders | None:
    """Names, formats and conversions of a text's placeholders, in any order; None if its braces do not match."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        return None
    return sorted((name, form or "", how or "") for _, name, form, how in parts if name is not None)


def _literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {one.arg: one.value for one in node.keywords}
        shown = [value for key, value in keywords.items() if key in SHOWN_KEYWORDS and not _is_left_alone(keywords)]
        if name in MARKING:
            shown += node.args[:1]
        elif name in SHOWN_POSITIONS:
            shown += node.args[SHOWN_POSITIONS[name] :][:1]
        for value in shown:
            yield from _strings(value)


def _is_left_alone(keywords: dict[str | None, ast.expr]) -> bool:
    told = keywords.get("translate")
    return isinstance(told, ast.Constant) and told.value is False


def _strings(node: ast.expr) -> Iterator[str]:
    """The literals that an expression may result in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body)
        yield from _strings(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _strings(value)


def _registered_texts() -> Iterator[str]:
    for module in blender_addon.MODULES:
        for kind in getattr(module, "CLASSES", ()):
            # Names and descriptions of property groups are in no panel.
            if not issubclass(kind, bpy.types.PropertyGroup):
                yield from (getattr(kind, "bl_label", ""), getattr(kind, "bl_description", ""))
            for one in _properties_of(kind):
                yield from _property_texts(one)
        for owner, name, _ in getattr(module, "PROPERTIES", ()):
            # Python's own properties are among them too, and are not shown.
            if (one := owner.bl_rna.properties.get(name)) is not None:
                yield from _property_texts(one)


def _properties_of(kind: type) -> Iterator[bpy.types.Property]:
    """The add-on's own properties of a registered class."""
    rna = kind.bl_rna
    if issubclass(kind, bpy.types.Operator):
        # The class itself has only those of every operator.
        group, _, name = kind.bl_idname.partition(".")
        rna = getattr(getattr(bpy.ops, group), name).get_rna_type()
    yield from (one for one in rna.properties if one.is_runtime)


def _property_texts(one: bpy.types.Property) -> Iterator[str]:
    if not one.name or one.name == one.identifier:
        return  # properties without a name are not shown
    yield from (one.name, one.description)
    if isinstance(one, bpy.types.EnumProperty):
        for item in one.enum_items_static:
            yield from (item.name, item.description)


def main() -> int:
    """Print how the catalogues differ from the source; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locale", nargs="?", help="catalogue to list the texts of, for example it_IT")
    chosen = parser.parse_args().locale
    if chosen and chosen not in translations.LOCALES:
        parser.error(f"invalid locale {chosen!r}: expected one of {', '.join(translations.LOCALES)}")
    blender_addon.register()
    texts = texts_of_interface()
    blender_addon.unregister()
    for locale in translations.LOCALES:
        differs = compare(translations.read_catalogue(locale), texts)
        translated = f"{len(texts) - len(differs.missing)} of {len(texts)} translated"
        wrong = f"{len(differs.excess)} in excess, {len(differs.placeholders)} with other placeholders"
        print(f"{locale}: {translated}, {wrong}")
        if locale == chosen:
            for title, found in vars(differs).items():
                print(f"{title}:", json.dumps(dict.fromkeys(found, ""), ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
