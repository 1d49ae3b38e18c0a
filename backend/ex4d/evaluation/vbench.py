"""VBench's own figures: lays results out as its command wants them, and reads what that wrote.

VBench cannot share this environment: it wants numpy below 2, transformers 4.33.2, and pyiqa, whose licence is for
research only. So it runs in one of its own, over the folders that are written here, in its mode for own videos.
"""

from __future__ import annotations

import glob
import hashlib
import json
import shlex
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ex4d.evaluation.clips import Frames
from ex4d.evaluation.errors import EvaluationError
from ex4d.media import VideoWriter
from ex4d.media.media_errors import atomic_write

# Those of VBench's dimensions that need no prompt, and that its mode for own videos supports.
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
VIDEOS = "videos"
_RESULTS = "*_eval_results.json"
_DIGITS = 12  # of the hash in a video's name
_OF_HUNDRED = ("imaging_quality",)  # single videos have it in percent, and VBench's means as a share


def figures_of_vbench(
    result: Frames, method: str, task: str, fps: Fraction, folder: Path
) -> tuple[dict[str, float], str]:
    """VBench's figures of one result; writes the video that it measures.

    Args:
        result: the method's frames, at the size and length at which all methods are measured.
        fps: of the video.
        folder: for VBench, with a folder a method; its results are looked for there, too.

    Returns:
        Figures "vbench/DIMENSION", whose means over results are VBench's own, and the command that measures those of
        `DIMENSIONS` that are missing; "" where none is.

    Raises:
        EvaluationError: its file of results cannot be used.
    """
    place = folder / method
    video = place / VIDEOS / video_name(result, task)
    if not video.is_file():
        for earlier in video.parent.glob(f"{glob.escape(_stem(task))}-{'?' * _DIGITS}{video.suffix}"):
            earlier.unlink()
        _write(result, video, fps)
    found: dict[str, float] = {}
    for file in sorted(place.glob(_RESULTS), key=lambda one: (one.stat().st_mtime_ns, one.name)):
        found |= _figures_of(file, video.name)
    missing = [one for one in DIMENSIONS if f"vbench/{one}" not in found]
    if not missing:
        return found, ""
    return found, f"not measured yet; in an environment with the package vbench run: {command(place, missing)}"


def video_name(result: Frames, task: str) -> str:
    """Of the task, and of the content: figures of an earlier result are never taken for those of a later one."""
    digest = hashlib.sha256(f"{task} {result.digest()}".encode()).hexdigest()[:_DIGITS]
    return f"{_stem(task)}-{digest}.mp4"


def command(place: Path, dimensions: Sequence[str] = DIMENSIONS) -> str:
    """What measures a method's folder; it is entered, since VBench does not quote all of its paths."""
    options = (
        f"--mode custom_input --videos_path {VIDEOS} --output_path . --dimension {shlex.quote(' '.join(dimensions))}"
    )
    return f"cd {shlex.quote(str(place.resolve()))} && vbench evaluate {options}"


def _stem(task: str) -> str:
    return task.replace("/", "__")


def _write(result: Frames, video: Path, fps: Fraction) -> None:
    video.parent.mkdir(parents=True, exist_ok=True)
    if not result.notes and result.path.suffix == video.suffix:
        with atomic_write(video) as partial:
            shutil.copyfile(result.path, partial)
        return
    with VideoWriter(video, result.width, result.height, fps) as writer:
        for frame in result:
            writer.write(frame)


def _figures_of(file: Path, name: str) -> dict[str, float]:
    try:
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {
            f"vbench/{dimension}": float(each["video_results"]) / (100 if dimension in _OF_HUNDRED else 1)
            for dimension, (_, videos) in stored.items()
            for each in videos
            if Path(each["video_path"]).name == name
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{file} is not a file of VBench's results ({error!r}): delete it, or run VBench again"
        ) from error
