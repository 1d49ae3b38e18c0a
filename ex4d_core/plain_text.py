"""Makes text from elsewhere (labels, reasons, names of files) harmless for terminals and logs.

Such text may hold escape sequences, which act on a terminal, newlines, which forge lines of a log, and marks that
reverse the direction of what follows.
"""

from __future__ import annotations

import re

# C0 and C1 controls, marks and overrides of direction, Unicode's own separators of lines, halves of surrogate pairs.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_SPACE = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_ANY = re.compile(f"[{_UNSAFE}]")
_BUT_LINES = re.compile(f"(?![\t\n])[{_UNSAFE}]")
_REPLACEMENT = "\ufffd"


def plain_line(text: str) -> str:
    """One line of text for people: line breaks are spaces, and what acts on a terminal is a replacement character."""
    return _ANY.sub(_REPLACEMENT, _SPACE.sub(" ", text))


def plain_lines(text: str) -> str:
    """Text for people that keeps its lines."""
    return _BUT_LINES.sub(_REPLACEMENT, text.replace("\r\n", "\n"))


def shortened(text: str, most: int) -> str:
    """The beginning of a text, of at most ``most`` characters; an ellipsis shows that there was more."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def plain_json(document: str) -> str:
    """A JSON document with the same content, in which all such characters are escaped."""
    return _BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
