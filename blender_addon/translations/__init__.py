"""Catalogues of the interface in other languages than English, by the language of Blender's preferences.

Each is a file of JSON, `{context: {English: translated}}`. A text under "*" also stands for operators' names, which
Blender looks up under "Operator", and for words in `CONTEXT`; the file has these contexts only where a text must read
otherwise there. `scripts/list_translations.py` says what a catalogue lacks. The file of a language that runs from right
to left is written by `scripts/write_right_to_left.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import bpy

# Blender's names of the languages; the catalogue is the file of that name.
LOCALES = ("it_IT", "fa_IR")
# Of words that Blender itself translates in another sense: its "Project" is what textures do, its "Clip" cuts.
CONTEXT = "EX-4D"
_OPERATOR = bpy.app.translations.contexts.operator_default
_DEFAULT = bpy.app.translations.contexts.default


def read_catalogue(locale: str) -> dict[str, dict[str, str]]:
    """A catalogue as its file has it: context, English text, translated text."""
    return json.loads(Path(__file__).with_name(f"{locale}.json").read_text(encoding="utf-8"))


def messages(locale: str) -> dict[tuple[str, str], str]:
    """A catalogue as Blender takes it: translated texts by context and English text."""
    catalogue = read_catalogue(locale)
    contexts = {one: catalogue[_DEFAULT] | catalogue.get(one, {}) for one in (_DEFAULT, _OPERATOR, CONTEXT)}
    return {(context, english): text for context, texts in contexts.items() for english, text in texts.items()}


def register() -> None:
    """Hand the catalogues to Blender, which looks texts up in them after its own."""
    bpy.app.translations.register(__package__, {locale: messages(locale) for locale in LOCALES})


def unregister() -> None:
    """Take the catalogues back."""
    bpy.app.translations.unregister(__package__)
