"""Published weights, of the engine wan and of the depth estimators: what is here, what it is licensed for, fetching it.

One of three things is done:

  ex4d models list              what is here and what is not, where, and under which licence
  ex4d models fetch             all that is needed, or the parts that are named; goes on where it was stopped
  ex4d models check             are the files whole and the right ones? (reads every byte; --quick reads headers only)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.depth_names import ESTIMATORS, VIDEO_DEPTH_ANYTHING

SUMMARY = "list, fetch and check the weights of the engine wan and of the depth estimators"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "fetch", "check"))
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"dit, text_encoder, image_encoder, vae, ex4d, fast, {', '.join(ESTIMATORS)}",
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="default: EX4D_MODELS, or the user's data folder")
    parser.add_argument("--quick", action="store_true", help="check keys and shapes only, not every byte")


def run(options: argparse.Namespace) -> int:
    from ex4d.generate.wan.published import PARTS
    from ex4d.machine import models_folder
    from ex4d_core.errors import RequestError

    folder = (options.models or models_folder()).expanduser()
    known = {part.name: part for part in (*PARTS, *_depth_parts(folder))}
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        raise RequestError(f"there is no part {unknown[0]!r}; there are: {', '.join(known)}")
    parts = [known[name] for name in options.parts or known]
    if options.action == "list":
        return _list(folder, parts)
    if options.action == "check":
        return _check(folder, parts, bool(options.parts), options.quick)
    return _fetch(folder, parts if options.parts else [part for part in parts if part.needed])


def _depth_parts(folder: Path) -> list:
    """The depth models in the engine's own words. One of them is needed: the one that is free for any work."""
    from ex4d.depth.depth_models import DEPTH_MODELS
    from ex4d.generate.wan.published import PublishedFile, PublishedPart

    return [
        PublishedPart(
            model.name,
            f"depth: {model.title}",
            model.licence,
            model.bytes / 1e9,
            tuple(
                PublishedFile(repository.hub, path, repository.folder(folder).relative_to(folder).as_posix())
                for repository in model.repositories
                for path, _ in repository.files
            ),
            needed=model.name == VIDEO_DEPTH_ANYTHING,
        )
        for model in DEPTH_MODELS
    ]


def _list(folder: Path, parts: list) -> int:
    from rich.table import Table

    from ex4d.cli.options import plain_console
    from ex4d.generate.wan.files import list_loras
    from ex4d.generate.wan.inventory import files_here

    engine = Table("part", "what", "here", "GB", "licence", box=None)
    depth = Table("depth estimator", "here", "GB", "where", "licence", box=None)
    for part in parts:
        here, complete = files_here(folder, part)
        state = "yes" if complete else (f"{len(here)} of {len(part.files)} files" if here else "no")
        if part.name in ESTIMATORS:
            where = ", ".join(dict.fromkeys(file.folder for file in part.files))
            depth.add_row(part.name, state, f"{part.gigabytes:.2f}", where, part.licence)
        else:
            engine.add_row(part.name, part.what, state, f"{part.gigabytes:.1f}", part.licence)
    console = plain_console()
    for table in (engine, depth):
        if table.rows:
            console.print(table)
    loras = ", ".join(path.stem for path in list_loras(folder)) or "none"
    console.print(f"folder: {folder}\nLoRAs that --lora can name: {loras}")
    return 0


def _check(folder: Path, parts: list, named: bool, quick: bool) -> int:
    from ex4d.cli.options import progress_bar
    from ex4d.generate.wan.inventory import check_part

    wrong = 0
    width = max(len(part.name) for part in parts) + 1
    with progress_bar() as bar:
        for part in parts:
            # Seen once there are bytes to read; a part that is not here has none.
            task = bar.add_task(part.name, total=None, visible=False)
            findings = check_part(
                folder,
                part,
                quick=quick,
                progress=lambda done, total, task=task: bar.update(task, completed=done, total=total, visible=True),
                check_layout=(lambda name, _: _load_depth_model(name, folder)) if part.name in ESTIMATORS else None,
            )
            for finding in findings:
                # A part that is optional and was not asked for may be missing.
                if finding.missing and not part.needed and not named:
                    continue
                wrong += not finding.right
                verdict = "ok" if finding.right else "MISSING" if finding.missing else "WRONG"
                print(f"{verdict:8}{part.name:{width}}{finding.text}")
            bar.update(task, visible=False)
    return 1 if wrong else 0


def _load_depth_model(name: str, folder: Path):
    """Loading is strict, so it is the check: every tensor of the model is in the file, and no other."""
    import torch

    from ex4d.depth.depth_models import WeightsError, depth_model
    from ex4d.depth.estimator_choice import load_clip_model
    from ex4d.generate.wan.inventory import Finding

    model = depth_model(name)
    if packages := model.missing_packages():
        return Finding(True, f"keys and shapes were not compared: that needs {' and '.join(packages)}")
    try:
        load_clip_model(model, folder, torch.device("cpu"), torch.float16)
    except WeightsError as error:
        return Finding(False, str(error))
    return Finding(True, "loads: every tensor is there and fits")


def _fetch(folder: Path, parts: list) -> int:
    from ex4d.generate.wan.inventory import fetch_part

    for part in parts:
        print(f"{part.name}: {part.what}, {part.gigabytes:.1f} GB; {part.licence}")
        for path in fetch_part(folder, part):
            print(f"  {path}")
    return 0
