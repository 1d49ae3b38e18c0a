"""Adds to the documentation: the command line's reference, and images shared with the README and the add-on.

mkdocs.yml names this file as a hook. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {
    "images/contact_sheet.jpg": ROOT / "tests/data/demo/contact_sheet.jpg",
    **{f"images/{path.name}": path for path in sorted((ROOT / "blender_addon/walkthrough").glob("*.jpg"))},
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference of the command line, and the images that the README and the add-on share with the pages."""
    files.append(File.generated(config, "command-line.md", content=command_line_page()))
    for name, path in IMAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def command_line_page() -> str:
    """The help of `ex4d` and all its verbs, as Markdown."""
    intro = "# The command line\n\nGenerated from the commands themselves; `ex4d VERB --help` prints the same.\n"
    return "\n".join([intro, *(section(parser) for parser in parsers_below(command_line()))])


def command_line() -> argparse.ArgumentParser:
    """The parser of the command `ex4d` in this checkout, with the verbs whose programs lie beside this file."""
    for folder in (ROOT, ROOT / "backend", ROOT / "scripts"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    from ex4d.cli.checkout import CHECKOUT_VERBS
    from ex4d.cli.main import build_parser

    parser = build_parser()
    verbs = {verb.prog.split()[-1]: verb for verb in parsers_below(parser)}
    for name in CHECKOUT_VERBS:
        program = importlib.import_module(f"{name}.__main__")
        verbs[name].description = program.__doc__
        program.add_arguments(verbs[name])
    return parser


def parsers_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all verbs, in their order, each before those of its own verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield verb
                yield from parsers_below(verb)


def section(parser: argparse.ArgumentParser) -> str:
    """One verb: its description, its usage, and a table of its arguments."""
    formatter = argparse.HelpFormatter(prog=parser.prog, width=78)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    usage = formatter.format_help().strip()
    parts = [f"## {parser.prog}", description(parser.description or ""), f"```text\n{usage}\n```"]
    texts = parser._get_formatter()
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        rows = [
            f"| `{texts._format_action_invocation(action)}` | {cell(texts._expand_help(action))} |"
            for action in actions
            if action.help and not isinstance(action, argparse._HelpAction)
        ]
        if rows:
            parts.append(f"| {group.title or ''} | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def description(text: str) -> str:
    """A description's paragraphs; those with indented lines, which are examples or lists, are shown as they are."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        verbatim = any(line.startswith(" ") for line in paragraph.splitlines())
        paragraphs.append(f"```text\n{paragraph}\n```" if verbatim else escaped(paragraph.replace("``", "`")))
    return "\n\n".join(paragraphs)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def escaped(text: str) -> str:
    """Text with angle brackets and stars escaped, outside of `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<>*_\[\]])", r"\\\1", part) for part in parts)
