"""List, download and check the published weights of the engine wan and of the depth estimators.

  ex4d models list              which parts are here, how large they are, and their licences
  ex4d models fetch [PART ...]  download what wan needs, or the named parts; resumes interrupted downloads
                                ("evaluation" is all that ex4d evaluate uses)
  ex4d models check [PART ...]  compare files with the published ones (reads every byte; --quick reads headers only)

Weights are in the folder of --models. Those of the engine wan are also found by content: there, in --model-path, in
ComfyUI's folders and in Hugging Face's cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ex4d.cli.options import add_models_arguments, confirmed, machine_settings
from ex4d.cli.report import Report
from ex4d.weights.catalogue import EVALUATION, PARTS, Part
from ex4d_core.errors import RequestError
from ex4d_core.sizes import size_text

if TYPE_CHECKING:
    from ex4d.weights.inventory import CheckLayout
    from ex4d.weights.search import FoundModel

SUMMARY = "list, download and check the weights of the engine wan and of the depth estimators"


def list_parts(options: argparse.Namespace, report: Report) -> int:
    """List parts: which are here, how large they are, and what their licences allow."""
    from rich.table import Table

    from ex4d.leftovers import converted_weights
    from ex4d.weights.inventory import files_here
    from ex4d.weights.places import found_models, list_loras

    machine, parts = machine_settings(options), _chosen(options.parts)
    models = machine.models
    engine = Table("part", "what", "here", "GB", "licence", box=None)
    depth = Table("depth estimator", "here", "GB", "where", "licence", box=None)
    rows = []
    for part in parts:
        here, complete = files_here(models, part, machine.model_path)
        state = "yes" if complete else (f"{len(here)} of {len(part.files)} files" if here else "no")
        rows.append({**_described(part), "complete": complete, "files": here})
        if part.kind == "depth":
            depth.add_row(part.name, state, f"{part.bytes / 1e9:.2f}", ", ".join(part.repositories), part.licence)
        else:
            engine.add_row(part.name, part.title, state, f"{part.bytes / 1e9:.1f}", part.licence)
    report.show(*(table for table in (engine, depth) if table.rows))
    report.add("parts", rows, "")
    report.add("folder", models)
    loras = [path.stem for path in list_loras(models, machine.model_path)]
    report.add("loras", loras, ", ".join(loras) or "none for --loras")
    kept = list(converted_weights(models))
    size = sum(one.bytes for one in kept)
    described = f"{len(kept)} files, {size_text(size)}; ex4d clean removes them" if kept else ""
    report.add("converted", {"files": [one.path for one in kept], "bytes": size}, described)
    used = {path for row in rows for path in row["files"]}
    found = found_models(models, machine.model_path)
    report.add("found", [_found(one, used) for one in found], "")
    for one in found:
        for sentence in _sentences(one, used):
            report.say(sentence)
    return 0


def check_parts(options: argparse.Namespace, report: Report) -> int:
    """Compare files with the published ones: every byte, or with --quick keys and shapes only."""
    from ex4d.weights.inventory import check_part

    machine, parts = machine_settings(options), _chosen(options.parts)
    models = machine.models
    width = max(len(part.name) for part in parts) + 1
    rows = []
    with report.stages() as progress:
        for part in parts:
            findings = check_part(
                models,
                part,
                quick=options.quick,
                further=machine.model_path,
                progress=lambda done, total, name=part.name: progress(name, done, total),
                check_layout=_layout_check(part),
            )
            for finding in findings:
                # A part that is optional and was not asked for may be missing.
                if finding.missing and not part.needed and not options.parts:
                    continue
                verdict = "ok" if finding.right else "MISSING" if finding.missing else "WRONG"
                rows.append({"part": part.name, "verdict": verdict.lower(), "text": finding.text})
                report.say(f"{verdict:8}{part.name:{width}}{finding.text}")
    report.add("findings", rows, "")
    return 0 if all(row["verdict"] == "ok" for row in rows) else 1


def fetch_parts(options: argparse.Namespace, report: Report) -> int:
    """Download the named parts, or what the engine wan needs; resumes interrupted downloads."""
    from ex4d.weights.fetch import fetch_part, require_downloader
    from ex4d.weights.inventory import files_here

    machine = machine_settings(options)
    models = machine.models
    parts = _chosen(options.parts) if options.parts else [part for part in PARTS if part.needed]
    for part in parts:
        report.say(f"{part.name}: {part.title}, {size_text(part.bytes)}; {part.licence}")
        # Before the first byte: a download of gigabytes must not end at a package that is missing.
        if not files_here(models, part, machine.model_path)[1]:
            require_downloader(part)
        _note_missing_packages(part, report)
    total = size_text(sum(part.bytes for part in parts))
    if not options.parts and not options.yes and not confirmed(f"Download {total} into {models}?"):
        depth = min((part for part in PARTS if part.kind == "depth"), key=lambda part: part.bytes)
        raise RequestError(
            f"nothing was downloaded: give --yes for all of it ({total}), or name parts. For depth alone: "
            f"ex4d models fetch {depth.name} ({size_text(depth.bytes)})"
        )
    files = []
    for part in parts:
        here, _ = files_here(models, part, machine.model_path)
        for path in dict.fromkeys([*fetch_part(models, part, machine.model_path), *here]):
            report.say(f"  {path}")
            files.append(path)
    report.add("files", files, "")
    return 0


def _found(one: FoundModel, used: set[Path]) -> dict[str, object]:
    """A network that was found by content, for --json."""
    return {
        "files": one.paths,
        "name": one.model.name,
        "packing": one.model.packing,
        "names_of": one.model.style,
        "used": bool(used & set(one.paths)),
        "refused": one.model.refused,
        "missing_shards": one.missing,
    }


def _sentences(one: FoundModel, used: set[Path]) -> Iterator[str]:
    """What there is to say about a network that was found: nothing if it is the published file."""
    from ex4d.weights.checkpoints import name_of

    where, first = name_of(one.paths), one.paths[0]
    if one.model.refused:
        yield f"not used: {where} is {one.model.name}: {one.model.refused}"
    elif one.missing:
        yield f"not used: {where}, {one.text()}, lacks the shards {', '.join(one.missing)}"
    elif one.model.part == "ex4d" and first not in used:
        yield f"a further adapter: {where}; choose it with --adapter {first.stem}"
    elif used & set(one.paths) and one.model.packing not in ("bf16", "fp16", "float32"):
        yield f"used: {where}, {one.text()}"


def _note_missing_packages(part: Part, report: Report) -> None:
    """Tell what would keep a depth estimator from running here; its weights may be for another machine."""
    if part.kind != "depth":
        return
    from ex4d.depth.depth_models import depth_model
    from ex4d.installation import install_command

    if packages := depth_model(part.name).missing_packages():
        report.note(f"{part.name} also needs {' and '.join(packages)} here: run {install_command('depth')}")


def _chosen(names: Sequence[str]) -> list[Part]:
    names = [one for name in names for one in (EVALUATION if name == "evaluation" else (name,))]
    known = {part.name: part for part in PARTS}
    if unknown := [name for name in names if name not in known]:
        raise RequestError(f"unknown part {unknown[0]!r}: expected {', '.join(known)}")
    return [known[name] for name in names or known]


def _described(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "title": part.title,
        "kind": part.kind,
        "bytes": part.bytes,
        "licence": part.licence,
        "commercial": part.commercial,
    }


def _layout_check(part: Part) -> CheckLayout | None:
    """The check of the room that has the part's network."""
    if part.kind == "wan":
        from ex4d.generation.wan.layouts import check_layout
    elif part.kind == "tiny":
        from ex4d.generation.wan.tiny_decoder import check_layout
    elif part.kind == "depth":
        from ex4d.depth.estimator_choice import check_layout
    else:
        return None
    return check_layout


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all; {names}")
    add_models_arguments(parser)


def _add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _add_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="download without asking")


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    _add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="check keys and shapes only, not every byte")


ACTIONS = {
    name: SimpleNamespace(SUMMARY=summary, __doc__=run.__doc__, add_arguments=add_arguments, run=run)
    for name, summary, add_arguments, run in (
        ("list", "list parts, their sizes and their licences", _add_arguments, list_parts),
        ("fetch", "download parts", _add_fetch_arguments, fetch_parts),
        ("check", "compare files with the published ones", _add_check_arguments, check_parts),
    )
}
