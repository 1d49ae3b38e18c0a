"""Make training data of ordinary footage: simulated masks, and everything that training does not change encoded once.

  ex4d dataset build SOURCE -o FOLDER   a data set of WebDataset shards; the same command continues it
  ex4d dataset sheet SOURCE -o PNG      a contact sheet of masks on the first clip, to look at before
  ex4d dataset check FOLDER             read every sample of a data set, and name a shard that is damaged

SOURCE is a folder of clips, each with a caption beside it (NAME.txt), or a CSV file with the column clip and any of
caption, depth, camera and fov. ex4d train continues with the data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.options import (
    add_accept_licence_argument,
    add_machine_arguments,
    device,
    machine_settings,
    positive_number,
)
from ex4d.cli.report import Report
from ex4d_core.sizes import size_text
from ex4d_core.sources import DepthSettings

if TYPE_CHECKING:
    from ex4d.training.dataset_settings import DatasetSettings
    from ex4d.training.manifest import DatasetManifest

SUMMARY = "make training data of ordinary footage, with simulated masks"
_DEPTH_FIELDS = ("estimator", "licence", "refine_edges", "temporal_alignment", "full_precision", "noise_filter")


def build(options: argparse.Namespace, report: Report) -> int:
    """Build a data set of a folder of clips or a CSV file, or continue one that was begun with the same settings."""
    from ex4d.training.build import build_dataset

    with report.stages() as progress:
        dataset = build_dataset(
            options.source,
            options.out,
            _settings(options),
            devices=options.device or ["auto"],
            machine=machine_settings(options),
            progress=progress,
            note=report.note,
        )
    _report_manifest(dataset.manifest, options.out, report)
    return 0


def sheet(options: argparse.Namespace, report: Report) -> int:
    """Draw a contact sheet of simulated masks, without encoding anything."""
    from ex4d.media import write_png
    from ex4d.training.clip_list import list_clips
    from ex4d.training.mask_sheet import mask_sheet

    clips = list_clips(options.source, "without a caption")
    image, rows = mask_sheet(
        clips,
        _settings(options),
        options.rows,
        device=(options.device or ["auto"])[0],
        machine=machine_settings(options),
        note=report.note,
    )
    write_png(options.out, image)
    for number, row in enumerate(rows):
        report.say(f"row {number}: {row}")
    report.add("rows", rows, "")
    report.add("sheet", options.out)
    return 0


def check(options: argparse.Namespace, report: Report) -> int:
    """Read every sample of a data set; the first damaged shard is an error that names it."""
    from ex4d.training.shards import Dataset

    dataset = Dataset.open(options.dataset)
    with report.stages() as progress:
        for number, shard in enumerate(dataset.manifest.shards):
            for _ in dataset.samples(shard):
                pass
            progress("check", number + 1, len(dataset.manifest.shards))
    _report_manifest(dataset.manifest, options.dataset, report)
    return 0


def _settings(options: argparse.Namespace) -> DatasetSettings:
    from ex4d.training.dataset_settings import DatasetSettings
    from ex4d.training.mask_settings import MoveSettings, RegionSettings

    return settings_from(
        options,
        DatasetSettings,
        depth=settings_from(options, DepthSettings, layout="estimator"),
        moves=settings_from(options, MoveSettings),
        regions=settings_from(options, RegionSettings),
    )


def _report_manifest(manifest: DatasetManifest, place: Any, report: Report) -> None:
    from rich.table import Table

    from ex4d.training.unseen_share import distribution_rows

    counts = Table("", "", box=None, show_header=False)
    for name, count in manifest.counts.items():
        counts.add_row(name, str(count))
    shares = Table("masks", "count", "unseen", "10 / 50 / 90 % of masks have at most", box=None)
    for row in distribution_rows(manifest.unseen):
        shares.add_row(*row)
    report.show(counts, shares)
    size = sum(shard.bytes for shard in manifest.shards)
    report.add("counts", manifest.counts, "")
    report.add("unseen", manifest.unseen, "")
    report.add("shards", len(manifest.shards), f"{len(manifest.shards)}, {manifest.samples} samples, {size_text(size)}")
    report.add("dataset", str(place))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    from ex4d.training.dataset_settings import DatasetSettings
    from ex4d.training.mask_settings import MoveSettings, RegionSettings

    parser.add_argument("source", type=Path, help="a folder of clips, or a .csv file with the column clip")
    add_flags(parser, DatasetSettings)
    add_flags(parser.add_argument_group("rendering masks: camera moves"), MoveSettings)
    add_flags(parser.add_argument_group("tracking masks: hidden regions"), RegionSettings)
    others = [name for name in DepthSettings.__dataclass_fields__ if name not in _DEPTH_FIELDS]
    depth = parser.add_argument_group("depth of clips without depth files")
    add_flags(depth, DepthSettings, skip=others, estimator="auto")
    add_accept_licence_argument(depth)
    add_machine_arguments(parser)
    parser.add_argument(
        "--device",
        type=device,
        action="append",
        help="auto, cpu or cuda:N; repeat it for a worker each; default: every GPU, else the processor",
    )


def _add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder of the data set")
    _add_settings(parser)


def _add_sheet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PNG", help="file of the contact sheet")
    parser.add_argument("--rows", type=positive_number, default=3, metavar="N", help="masks of each kind")
    _add_settings(parser)


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a folder, or an address that webdataset reads")


ACTIONS = {
    name: SimpleNamespace(SUMMARY=summary, __doc__=run.__doc__, add_arguments=add_arguments, run=run)
    for name, summary, add_arguments, run in (
        ("build", "build a data set, or continue one", _add_build_arguments, build),
        ("sheet", "draw a contact sheet of masks", _add_sheet_arguments, sheet),
        ("check", "read every sample of a data set", _add_check_arguments, check),
    )
}
