"""Writes the catalogues of languages that run from right to left as Blender draws them, from scripts/right_to_left/.

    .venv/backend/bin/python scripts/write_right_to_left.py

Blender neither joins Arabic letters nor reorders them, and its own catalogues hold texts in the order and the shapes
of the screen. A translator edits the texts as they are typed; this writes blender_addon/translations/ from them.
Placeholders keep their direction, since the values are numbers, paths and names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from arabic_reshaper import reshape
from bidi.algorithm import get_display

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "scripts" / "right_to_left"
TARGET = ROOT / "blender_addon" / "translations"

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
# Letters of the private use area stand for placeholders meanwhile: they run from left to right, and are in no text.
_FIRST_PRIVATE = 0xE000
# Marks for order and joining have done their work then, and could be drawn as boxes.
_MARKS = dict.fromkeys([0x200C, 0x200E, 0x200F])


def as_drawn(text: str) -> str:
    """A text in the order and the shapes of the screen, without marks on letters; its placeholders stay as they are."""
    placeholders = _PLACEHOLDER.findall(text)
    numbers = iter(range(_FIRST_PRIVATE, _FIRST_PRIVATE + len(placeholders)))
    drawn = get_display(reshape(_PLACEHOLDER.sub(lambda _: chr(next(numbers)), text)), base_dir="R")
    for number, placeholder in enumerate(placeholders):
        drawn = drawn.replace(chr(_FIRST_PRIVATE + number), placeholder)
    return drawn.translate(_MARKS)


def catalogue_as_drawn(source: Path) -> str:
    """The text of a catalogue's file, from the file that a translator edits."""
    typed = json.loads(source.read_text(encoding="utf-8"))
    drawn = {context: {english: as_drawn(text) for english, text in texts.items()} for context, texts in typed.items()}
    return json.dumps(drawn, ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    """Write every catalogue."""
    for source in sorted(SOURCE.glob("*.json")):
        (TARGET / source.name).write_text(catalogue_as_drawn(source), encoding="utf-8")


if __name__ == "__main__":
    main()
