"""Rendered scenes with ray-cast truth, one .npz each; `scripts/make_true_scenes.py` of the source makes such files.

A scene is a clip with exact depth, and views whose truth is known, each of one frame of the clip. Views of one name
whose frames follow each other are one evaluated clip, the whole of a move; any other view is a clip of one frame.

rgb, depth                          (T, H, W, 3) uint8 sRGB; (T, H, W) float32 along z
intrinsics, source_extrinsics       (3, 3), pixels; (T, 4, 4) world to camera, OpenCV: of the footage
view_name, view_frame               (V,): the move, such as "orbit 30", and the frame of the footage
extrinsics, view_intrinsics         (V, 4, 4); (V, 3, 3): of the views, in the same world
true_rgb, true_visible              (V, h, w, 3) uint8; (V, h, w) bool: what is there; whether that frame saw it
"""

from __future__ import annotations

import lzma
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets.own_files import saved_camera, stored, work_folder
from ex4d.media import write_png
from ex4d_core.archives import ArchiveError, read_npz
from ex4d_core.cameras import CameraPath

TITLE = "scenes with ray-cast truth"
_ARRAYS = ("rgb", "depth", "source_extrinsics", "view_name", "view_frame", "true_rgb", "true_visible")


def matches(folder: Path) -> bool:
    """Whether any of its .npz files is a scene."""
    return any(_is_scene(path) for path in folder.glob("*.npz"))


def clips(folder: Path, work: Path) -> list[EvaluationClip]:
    """``SCENE/MOVE`` for each move; ``SCENE/MOVE_FRAME`` where a scene has several of one name.

    Raises:
        EvaluationError: a file cannot be used.
    """
    place = work_folder(folder, work)
    paths = (path for path in sorted(folder.glob("*.npz")) if _is_scene(path))
    return [clip for path in paths for clip in _clips_of(path, place / path.stem)]


def shots(names: Sequence[str], frames: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Which views belong together: a name for each shot, and the indices of its views, in the order of frames.

    Args:
        names: of each view.
        frames: of the footage, of each view.

    Raises:
        ValueError: a name is not a plain file name; raised before the first shot.
    """
    for name in names:
        require_plain_name(name)
    found: list[list[int]] = []
    for index in sorted(range(len(names)), key=lambda one: (names[one], frames[one])):
        before = found[-1][-1] if found else None
        if before is not None and (names[before], frames[before] + 1) == (names[index], frames[index]):
            found[-1].append(index)
        else:
            found.append([index])
    titles = [names[shot[0]].replace(" ", "_") for shot in found]
    # Some file systems do not tell capitals from small letters.
    count, taken = Counter(title.casefold() for title in titles), set[str]()
    for shot, title in sorted(zip(found, titles, strict=True)):
        wanted = title if count[title.casefold()] == 1 else f"{title}_{frames[shot[0]]:03d}"
        name, number = wanted, 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name.casefold())
        yield name, shot


def require_plain_name(name: str) -> None:
    """Check that a name from a file names one file or folder in the place where it is put, and nothing elsewhere.

    Raises:
        ValueError: it is a path, a hidden file, or no name.
    """
    if not name.strip() or not name.isprintable() or name.startswith(".") or set(name) & set("/\\:"):
        raise ValueError(f"invalid name {name!r}: expected a plain name, not a path or a hidden file")


def _is_scene(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in _ARRAYS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except lzma.LZMAError as error:
        raise ArchiveError(f"damaged ({error})") from error


def _clips_of(path: Path, work: Path) -> Iterator[EvaluationClip]:
    with stored(path, TITLE):
        require_plain_name(path.stem)
        held = _arrays(path)
        height, width = held["depth"].shape[1:]
        source = CameraPath(held["source_extrinsics"], held["intrinsics"], width, height)
        names, frames = [str(name) for name in held["view_name"]], [int(frame) for frame in held["view_frame"]]
        for name, views in shots(names, frames):
            yield _clip(f"{path.stem}/{name}", held, source, views, [frames[view] for view in views], work / name)


def _clip(
    name: str, held: dict[str, np.ndarray], source: CameraPath, views: list[int], frames: list[int], work: Path
) -> EvaluationClip:
    shutil.rmtree(work, ignore_errors=True)
    for kind, images in (
        ("source", held["rgb"][frames]),
        ("truth", held["true_rgb"][views]),
        ("seen", held["true_visible"][views]),
    ):
        (work / kind).mkdir(parents=True)
        for index, image in enumerate(images):
            write_png(work / kind / f"{index:04d}.png", image)
    np.save(work / "depth.npy", held["depth"][frames].astype(np.float32))
    height, width = held["true_visible"].shape[1:]
    return EvaluationClip(
        name,
        work / "source",
        depth=work / "depth.npy",
        source_camera=saved_camera(source.at(frames), work / "source_camera.npz"),
        camera=CameraPath(held["extrinsics"][views], held["view_intrinsics"][views], width, height),
        truth=work / "truth",
        seen=work / "seen",
    )
