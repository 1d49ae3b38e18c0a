"""Prints the tables of occlusion models, fillings and depth clean-up, as `ex4d evaluate` measures them on true scenes.

Every model draws, through the pipeline, what it makes of each true view of the six scenes of `make_true_scenes.py`, or
of those of another folder; `ex4d.evaluation` compares that with the truth. One command each makes the tables of
docs/measured:

    python scripts/evaluate_scenes.py masks      # rendering.md: occlusion models
    python scripts/evaluate_scenes.py filling    # rendering.md: what previews show in holes
    python scripts/evaluate_scenes.py depth      # depth.md: what errors of depth cost, and clean-up recovers

With ``-o FOLDER`` data set and results stay there, for `ex4d evaluate FOLDER/data --results NAME=FOLDER/results/00`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from scipy import ndimage

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from depth_clean_up import GRADED_ERRORS, cleaned, repaired  # noqa: E402
from ex4d.evaluation import Evaluation, Method, evaluate  # noqa: E402
from ex4d.evaluation.datasets.true_scenes import shots  # noqa: E402
from ex4d.evaluation.protocols import Protocol  # noqa: E402
from ex4d.evaluation.report_files import cell, heading, number  # noqa: E402
from ex4d.evaluation.results import MASK_ENDING  # noqa: E402
from ex4d.generation.preview import PreviewEngine  # noqa: E402
from ex4d.media import write_png  # noqa: E402
from ex4d.pipeline.render import render_shot  # noqa: E402
from ex4d.raster import RenderedFrame  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from ex4d_core.render_settings import OCCLUSION_MODELS, RenderSettings  # noqa: E402
from mask_ceilings import are_inside, footage_places  # noqa: E402
from true_scenes import (  # noqa: E402
    TRUE_SCENES,
    TrueScene,
    load_scene,
    save_scene,
)

Fill = Callable[[RenderedFrame], np.ndarray]
_DEFAULT = RenderSettings(occlusion="thickness", clean=True, remember=False)
_NETWORK_LIKE = "blur of 2 px, flicker of 2 %"


@dataclass(frozen=True)
class Model:
    """What is compared: how a scene is drawn.

    Attributes:
        labels: of its row, one for each of the table's heads.
        settings: of the render.
        depth: of a scene, (T, H, W); the exact one by default.
        fill: a frame's picture without holes; None leaves them black.
    """

    labels: tuple[str, ...]
    settings: RenderSettings = _DEFAULT
    depth: Callable[[TrueScene], np.ndarray] = lambda scene: scene.depth
    fill: Fill | None = None

    @property
    def name(self) -> str:
        """Of its results."""
        return ", ".join(self.labels)


@dataclass(frozen=True)
class Table:
    """A table of the documentation.

    Attributes:
        heads: titles of the columns before the figures.
        models: its rows.
        protocol: how they are measured.
        columns: the figures.
        by_scene: those that have intervals, and whose means over each scene are given as well.
        hidden: whether there is also a table over what something hid, without what lies outside the footage's picture.
    """

    heads: tuple[str, ...]
    models: tuple[Model, ...]
    protocol: Protocol
    columns: tuple[str, ...]
    by_scene: tuple[str, ...]
    hidden: bool = False


def mask_models() -> Iterator[Model]:
    """Occlusion models on exact depth, and the default one on depth with errors, repaired."""
    for model, (masks, clean) in product(OCCLUSION_MODELS, (("as drawn", False), ("cleaned", True))):
        yield Model(("exact", model, masks), replace(_DEFAULT, occlusion=model, clean=clean))
    for name in (_NETWORK_LIKE, "noise of 1 %"):
        (add,) = (error.add for error in GRADED_ERRORS if error.name == name)
        yield Model((name, "thickness", "cleaned"), depth=lambda scene, add=add: repaired(scene, add))


def filling_models() -> Iterator[Model]:
    """The preview's filling, with and without the clip's memory, and two that anybody would think of."""
    yield Model(("mean colour of what is seen",), fill=_mean_color)
    yield Model(("colour of the nearest seen pixel",), fill=_nearest_color)
    yield Model(("preview",), fill=_previewed)
    yield Model(("preview, with the clip's memory",), replace(_DEFAULT, remember=True), fill=_previewed)


def depth_models() -> Iterator[Model]:
    """Errors of depth, before and after the steps of clean-up."""
    for error in GRADED_ERRORS:
        yield Model((error.name, "none"), depth=lambda scene, add=error.add: add(scene.depth))
        for steps in error.steps:
            yield Model(
                (error.name, steps),
                depth=lambda scene, add=error.add, steps=steps: cleaned(scene, add(scene.depth), steps),
            )


def tables() -> dict[str, Table]:
    """By the word that asks for them."""
    masks, views = Protocol.load("masks"), replace(Protocol.load("single-views"), metrics=("psnr", "ssim"))
    figures, holes = masks.metrics, ("psnr/unseen", "ssim/unseen")
    return {
        "masks": Table(
            ("depth", "model", "masks"), tuple(mask_models()), masks, figures, by_scene=("mask_iou", "mask_psnr")
        ),
        "filling": Table(("filling",), tuple(filling_models()), views, holes, by_scene=holes, hidden=True),
        "depth": Table(("error", "clean-up"), tuple(depth_models()), masks, figures, by_scene=("mask_iou",)),
    }


def _mean_color(frame: RenderedFrame) -> np.ndarray:
    mean = frame.color[frame.mask].mean(axis=0) if frame.mask.any() else 127.5
    return np.where(frame.mask[..., None], frame.color, np.round(mean)).astype(np.uint8)


def _nearest_color(frame: RenderedFrame) -> np.ndarray:
    if not frame.mask.any():
        return np.full_like(frame.color, 128)
    nearest = ndimage.distance_transform_edt(~frame.mask, return_distances=False, return_indices=True)
    return frame.color[tuple(nearest)]


def _previewed(frame: RenderedFrame) -> np.ndarray:
    # An engine of its own: views are of other frames and cameras, whose holes have nothing in common.
    (image,) = PreviewEngine().generate([frame])
    return image


def write_results(model: Model, scenes: Sequence[TrueScene], folder: Path) -> None:
    """Draw every view of every scene, and keep pictures and masks as `ex4d evaluate` finds them."""
    for scene in scenes:
        path = _view_cameras(scene)
        frames = [view.frame for view in scene.views]
        clip = scene.clip(model.depth(scene))
        rendered = list(render_shot(clip, path, model.settings, source_frames=frames, device="cpu"))
        for name, views in shots([view.name for view in scene.views], frames):
            place = folder / scene.name / name
            for index, view in enumerate(views):
                frame = rendered[view]
                _write(place / f"{index:04d}.png", frame.color if model.fill is None else model.fill(frame))
                _write(place.with_name(f"{name}{MASK_ENDING}") / f"{index:04d}.png", frame.mask)


def _view_cameras(scene: TrueScene) -> CameraPath:
    cameras = [view.camera for view in scene.views]
    poses, lenses = (
        np.concatenate([getattr(one, key) for one in cameras]) for key in ("world_to_camera", "intrinsics")
    )
    return CameraPath(poses, lenses, *cameras[0].size)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image)


def with_only_hidden(scene: TrueScene) -> TrueScene:
    """The scene with everything outside the footage's picture counted as seen: what is left was hidden."""
    views = [
        replace(view, visible=view.visible | ~are_inside(scene, footage_places(scene, view))) for view in scene.views
    ]
    return replace(scene, views=tuple(views))


def evaluated(table: Table, scenes: Sequence[TrueScene], place: Path) -> Iterator[tuple[str, Evaluation]]:
    """Titles and evaluations of a table: over all views, and over what was hidden in them."""
    methods = []
    for number_of_row, model in enumerate(table.models):
        # Labels have characters that not every file system takes.
        methods.append(Method(model.name, place / "results" / f"{number_of_row:02d}"))
        shutil.rmtree(methods[-1].folder, ignore_errors=True)
        write_results(model, scenes, methods[-1].folder)
        print(f"drawn: {model.name}", file=sys.stderr, flush=True)
    for title, data, shown in (
        ("", "data", scenes),
        *([("hidden by something", "hidden", [with_only_hidden(one) for one in scenes])] if table.hidden else ()),
    ):
        for scene in shown:
            save_scene(scene, place / data / f"{scene.name}.npz")
        yield title, evaluate(place / data, methods, table.protocol, place / "work")


def lines_of(table: Table, title: str, evaluation: Evaluation) -> Iterator[str]:
    """The means over all views, then those over the views of each scene."""
    if title:
        yield f"Over what was {title}:\n"
    yield from _head(table, map(heading, table.columns))
    for model, row in zip(table.models, evaluation.table, strict=True):
        cells = (
            cell(row, name) if name in table.by_scene else number(row.figures[name].value) for name in table.columns
        )
        yield f"| {' | '.join((*model.labels, *cells))} |"
    scenes = list(dict.fromkeys(row.clip.partition("/")[0] for row in evaluation.rows))
    for name in table.by_scene:
        yield f"\n{heading(name)}:\n"
        yield from _head(table, scenes)
        for model in table.models:
            means = (_mean(evaluation, model, scene, name) for scene in scenes)
            yield f"| {' | '.join((*model.labels, *means))} |"
    yield ""


def _head(table: Table, columns: Iterable[str]) -> Iterator[str]:
    titles = (*table.heads, *columns)
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"


def _mean(evaluation: Evaluation, model: Model, scene: str, name: str) -> str:
    """Of a figure of a model over a scene's views."""
    values = [
        row.figures[name]
        for row in evaluation.rows
        if row.method == model.name and row.clip.partition("/")[0] == scene and name in row.figures
    ]
    return number(float(np.mean(values))) if values else "–"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("masks", "filling", "depth"), help="which one")
    parser.add_argument("--scenes", type=Path, default=TRUE_SCENES, metavar="FOLDER", help="other scenes, .npz files")
    parser.add_argument("--only", default="", help="scenes whose name contains this")
    parser.add_argument("--model", default="", help="models whose name contains this")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="keep the data set and all results there")
    options = parser.parse_args(arguments)
    scenes = [load_scene(file) for file in sorted(options.scenes.glob("*.npz")) if options.only in file.stem]
    table = tables()[options.table]
    table = replace(table, models=tuple(one for one in table.models if options.model in one.name))
    if not scenes or not table.models:
        parser.error(f"there is no scene named {options.only!r} or no model named {options.model!r}")
    with tempfile.TemporaryDirectory(prefix="ex4d-scenes-") as temporary:
        for title, evaluation in evaluated(table, scenes, options.output or Path(temporary)):
            for problem in evaluation.problems:
                print(problem, file=sys.stderr)
            for line in lines_of(table, title, evaluation):
                print(line, flush=True)


if __name__ == "__main__":
    main()
