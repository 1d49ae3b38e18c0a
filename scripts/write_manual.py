"""Writes blender_addon/manual/, the add-on's manual as it opens from Blender without a network, from docs/add-on.md.

    .venv/backend/bin/python scripts/write_manual.py

Each section of the second level is a page of its own, since browsers that are started with a file often lose the part
after "#". `blender_addon/help/manual.py` says which button leads to which page.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import markdown

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "add-on.md"
TARGET = ROOT / "blender_addon" / "manual"

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; color: #222; }}
  nav a {{ margin-right: 1rem; }}
  table {{ border-collapse: collapse; }}
  td, th {{ border: 1px solid #ccc; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }}
</style>
<nav>{links}</nav>
<h1>{title}</h1>
{body}
</html>
"""


def pages(text: str) -> dict[str, str]:
    """The manual's pages as HTML, by file name.

    Args:
        text: the add-on's manual as Markdown, with one heading of the first level.
    """
    first, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    title, _, intro = first.removeprefix("# ").partition("\n")
    parts = {"index.html": (title, intro)}
    for section in sections:
        heading, _, body = section.partition("\n")
        parts[f"{slug(heading)}.html"] = (heading, body)
    links = "\n".join(f'<a href="{name}">{escape(heading)}</a>' for name, (heading, _) in parts.items())
    return {
        name: _PAGE.format(title=escape(heading), links=links, body=to_html(body))
        for name, (heading, body) in parts.items()
    }


def slug(heading: str) -> str:
    """The name of a section's page: "Shots and takes" is in ``shots-and-takes.html``."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def to_html(body: str) -> str:
    """A section as HTML, whose links to sections lead to their pages; other pages are named in place of a link."""
    own = re.sub(r"\]\(#([a-z0-9-]+)\)", r"](\1.html)", body)
    named = re.sub(r"\[([^\]]*)\]\((?!https?:)([^)#]+\.md)[^)]*\)", r"\1: `docs/\2`", own)
    return markdown.markdown(named, extensions=["tables"])


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    written = pages(SOURCE.read_text(encoding="utf-8"))
    for old in TARGET.glob("*.html"):
        if old.name not in written:
            old.unlink()
    for name, html in written.items():
        (TARGET / name).write_text(html, encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {', '.join(written)}")
