"""The weights that the engine wan rests on: which there are, what they are licensed for, fetching and checking them.

ex4d models list              what is here and what is not
ex4d models fetch             all that is needed, or the parts that are named; goes on where it was stopped
ex4d models check             are the files whole and the right ones? (reads every byte; --quick reads headers only)
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "list, fetch and check the weights of the engine wan"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "fetch", "check"))
    parser.add_argument("parts", nargs="*", metavar="PART", help="dit, text_encoder, image_encoder, vae, ex4d, fast")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="default: EX4D_MODELS, or the user's data folder")
    parser.add_argument("--quick", action="store_true", help="check keys and shapes only, not every byte")


def run(options: argparse.Namespace) -> int:
    from backend.generate.wan.files import models_folder
    from backend.generate.wan.published import PARTS
    from ex4d_core.shot import RequestError

    known = {part.name: part for part in PARTS}
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        raise RequestError(f"there is no part {unknown[0]!r}; there are: {', '.join(known)}")
    folder = (options.models or models_folder()).expanduser()
    parts = [known[name] for name in options.parts] if options.parts else list(PARTS)
    if options.action == "list":
        return _list(folder, parts)
    if options.action == "check":
        return _check(folder, parts, bool(options.parts), options.quick)
    return _fetch(folder, parts if options.parts else [part for part in parts if part.needed])


def _list(folder: Path, parts: list) -> int:
    from rich.console import Console
    from rich.table import Table

    from backend.generate.wan.files import list_loras
    from backend.generate.wan.inventory import files_here

    table = Table("part", "what", "here", "GB", "licence", box=None)
    for part in parts:
        here, complete = files_here(folder, part)
        state = "yes" if complete else (f"{len(here)} of {len(part.files)} files" if here else "no")
        table.add_row(part.name, part.what, state, f"{part.gigabytes:.1f}", part.licence)
    console = Console()
    console.print(table)
    loras = ", ".join(path.stem for path in list_loras(folder)) or "none"
    console.print(f"folder: {folder}\nLoRAs that --lora can name: {loras}", highlight=False)
    return 0


def _check(folder: Path, parts: list, named: bool, quick: bool) -> int:
    from backend.commands.options import progress_bar
    from backend.generate.wan.inventory import check_part

    wrong = 0
    with progress_bar() as bar:
        for part in parts:
            task = bar.add_task(part.name, total=None)
            findings = check_part(
                folder,
                part,
                quick=quick,
                progress=lambda done, total, task=task: bar.update(task, completed=done, total=total),
            )
            for finding in findings:
                # A part that is optional and was not asked for may be missing.
                if finding.missing and not part.needed and not named:
                    continue
                wrong += not finding.right
                print(f"{'ok   ' if finding.right else 'WRONG'} {part.name:14}{finding.text}")
    return 1 if wrong else 0


def _fetch(folder: Path, parts: list) -> int:
    from backend.generate.wan.inventory import fetch_part

    for part in parts:
        print(f"{part.name}: {part.what}, {part.gigabytes:.1f} GB; {part.licence}")
        for path in fetch_part(folder, part):
            print(f"  {path}")
    return 0
