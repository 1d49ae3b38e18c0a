"""The clips of a data set: footage in a folder with captions beside it, or rows of a CSV file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ex4d.media.sequences import file_pattern, is_sequence
from ex4d.training.errors import TrainingDataError
from ex4d_core.errors import RequestError
from ex4d_core.schema import Range, Settings
from ex4d_core.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

STILL_CAMERA = "still"
_COLUMNS = ("clip", "caption", "depth", "camera", "fov")


@dataclass(frozen=True)
class Clip(Settings):
    """One clip of footage.

    Attributes:
        footage: a video, a folder of images, or a pattern.
        caption: the prompt of its samples.
        depth: files as `ex4d reconstruct --depth` takes them; "" where depth is estimated.
        camera: the source camera's file, as `ex4d reconstruct --source-camera` takes it, in the depth's unit; "still"
            for one that is known to stand still; "" where it is not known.
        fov: horizontal field of view, degrees; None where files or footage say it, or it is assumed.
        identity: number, size and time of the files of footage, depth and camera, by which a changed clip is noticed.
    """

    footage: str
    caption: str
    depth: str = ""
    camera: str = ""
    fov: Annotated[float | None, Range(above=0, below=180)] = None
    identity: str = ""


def list_clips(source: Path, prompt: str) -> list[Clip]:
    """The clips of a folder or a CSV file, in a fixed order.

    A folder holds videos, also in folders below it, and folders of images; a clip's caption is the text file beside it,
    ``NAME.txt``. A CSV file has the column ``clip`` and any of ``caption``, ``depth``, ``camera`` and ``fov``; relative
    paths start at its folder.

    Args:
        prompt: of clips without a caption; "" for none.

    Raises:
        TrainingDataError: nothing there, no clips, a row that cannot be used, or clips without a caption.
    """
    if source.is_dir():
        clips = _clips_of_folder(source, prompt)
    elif source.suffix.lower() == ".csv":
        clips = _clips_of_csv(source, prompt)
    else:
        what = "is neither a folder nor a .csv file" if source.exists() else "does not exist"
        raise TrainingDataError(f"{source} {what}: name a folder of clips, or a .csv file with the column clip")
    if not clips:
        raise TrainingDataError(
            f"{source} has no clips: expected videos ({', '.join(VIDEO_SUFFIXES)}) or image folders"
        )
    if bare := [clip.footage for clip in clips if not clip.caption]:
        raise TrainingDataError(
            f"{len(bare)} of {len(clips)} clips have no caption, the first of them {bare[0]}: write it to a .txt file "
            "of the clip's name or to the CSV file's column caption, or give one for all of them with --prompt"
        )
    return clips


def _clips_of_folder(folder: Path, prompt: str) -> list[Clip]:
    clips, below = [], sorted(folder.rglob("*"))
    with_images = {path.parent for path in below if path.suffix.lower() in IMAGE_SUFFIXES} - {folder}
    for path in below:
        if path in with_images or (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES):
            beside = path.with_suffix(".txt") if path.is_file() else path.with_name(path.name + ".txt")
            clips.append(Clip(str(path), _caption_of(beside) or prompt, identity=_identity(path)))
    return clips


def _caption_of(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"caption {path} cannot be read: {error}; write it as UTF-8 text") from error


def _clips_of_csv(path: Path, prompt: str) -> list[Clip]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path} cannot be read: {error}; save it as CSV in UTF-8") from error
    if rows and (unknown := [str(name) for name in rows[0] if name not in _COLUMNS] or "clip" not in rows[0]):
        problem = f"unknown column {unknown[0]!r:.60}" if isinstance(unknown, list) else "no column clip"
        raise TrainingDataError(f"{path} has {problem}: expected {', '.join(_COLUMNS)}")
    clips = []
    for number, row in enumerate(rows, 2):
        if None in row.values() or None in row:
            raise TrainingDataError(f"{path} line {number} has another number of values than the first line")
        try:
            clips.append(_clip_of_row({name: text.strip() for name, text in row.items()}, path.parent, prompt))
        except (RequestError, TrainingDataError) as error:
            raise TrainingDataError(f"{path} line {number}: {error}") from error
    return clips


def _clip_of_row(row: dict[str, str], folder: Path, prompt: str) -> Clip:
    def place(name: str) -> str:
        return str(folder / row[name]) if row.get(name) else ""

    if not row["clip"]:
        raise TrainingDataError("the column clip is empty")
    footage, depth = Path(place("clip")), place("depth")
    camera = STILL_CAMERA if row.get("camera") == STILL_CAMERA else place("camera")
    if camera not in ("", STILL_CAMERA) and not depth:
        raise TrainingDataError("a camera file needs depth files in its unit: name them in the column depth")
    for name in (depth, "" if camera == STILL_CAMERA else camera):
        if name and not (Path(name).exists() or is_sequence(Path(name))):
            raise TrainingDataError(f"{name} does not exist")
    try:
        fov = float(row["fov"]) if row.get("fov") else None
    except ValueError:
        raise TrainingDataError(f"invalid fov {row['fov']!r:.60}: expected degrees") from None
    caption = " ".join(row.get("caption", "").split()) or prompt
    beside = {"depth": depth, "camera": "" if camera == STILL_CAMERA else camera}
    parts = [_identity(footage), *(f"{what}: {_identity(Path(name))}" for what, name in beside.items() if name)]
    return Clip(str(footage), caption, depth, camera, fov, "; ".join(parts))


def _identity(path: Path) -> str:
    """Number, size and time of a file, or of all files of a pattern or below a folder."""
    files = [path]
    if is_sequence(path):
        files = path.rglob("*") if path.is_dir() else path.parent.glob(file_pattern(path))
    states = [file.stat() for file in files if file.is_file()]
    newest = max((one.st_mtime_ns for one in states), default=0)
    return f"{len(states)} files, {sum(one.st_size for one in states)} bytes, {newest}"
