"""Finds the numbered files of image sequences, in the order of their numbers.

Used for footage (PNG, JPEG...) and for depth (EXR, 16-bit PNG).
"""

from __future__ import annotations

import glob
import os
import re
from itertools import pairwise
from pathlib import Path

from ex4d.media.media_errors import MediaError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".exr", ".dpx")
# Images that cameras and other programs write, and that are not read.
_OTHER_IMAGES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".cin", ".psd", ".tga", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw"),
)

_NUMBER_FIELD = re.compile(r"%0?\d*d|#+")
# A hyphen is a sign only after a separator or at the start: "take-001" counts from 1, "take_-001" from -1.
_NUMBER = re.compile(r"(?:(?<![^\W_])-)?\d+")


def is_sequence(path: Path) -> bool:
    """Whether `path` names many files: a folder, or a pattern such as shot_%04d.png, shot_####.png, shot_*.png."""
    # os.path returns False where pathlib raises PermissionError; opening the file reports it later.
    if os.path.isdir(path):
        return True
    return not os.path.exists(path) and bool(_NUMBER_FIELD.search(path.name) or "*" in path.name)


def file_pattern(path: Path) -> str:
    """The pattern, as `glob` takes it, of all names that the last part of a sequence's path may stand for."""
    return _NUMBER_FIELD.sub("*", glob.escape(path.name).replace("[*]", "*"))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame_2 before frame_10, and frame_-2 before both."""
    parts = [part for part in re.split(f"({_NUMBER.pattern})", name) if part]
    return [(0, int(part), "") if _NUMBER.fullmatch(part) else (1, 0, part.lower()) for part in parts]


def sequence_files(path: Path, suffixes: tuple[str, ...], what: str = "images") -> list[Path]:
    """The files of a sequence, sorted by number.

    Args:
        path: a folder, or a pattern in the last part of the path (%04d, #### or *).
        suffixes: accepted file name endings, lower case with the dot.
        what: the kind of files, for messages.

    Raises:
        MediaError: no such file, or a folder that holds more than one sequence.
    """
    try:
        if path.is_dir():
            found = [file for file in path.iterdir() if file.is_file()]
        else:
            found = [file for file in path.parent.glob(file_pattern(path)) if file.is_file()]
            if _NUMBER_FIELD.search(path.name):
                exact = re.compile(_NUMBER.pattern.join(re.escape(part) for part in _NUMBER_FIELD.split(path.name)))
                found = [file for file in found if exact.fullmatch(file.name)]
    except PermissionError as error:
        raise MediaError(f"{path}: no permission to list the folder. Allow reading it, or copy the files.") from error
    files = [file for file in found if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    pictures = [file for file in files if file.suffix.lower() != ".exr"]
    if suffixes == IMAGE_SUFFIXES and pictures:
        files = pictures  # EXR files beside other images are their depth
    if not files:
        others = sorted({file.suffix.lower() for file in found} & set(_OTHER_IMAGES))
        if others:
            kinds = ", ".join(others)
            raise MediaError(f"{path}: holds {kinds} files, which are not read. Convert them to .png or .exr.")
        endings = " ".join(suffixes)
        raise MediaError(f"{path}: holds no {what} ({endings}). Choose the folder that holds the frames.")
    sequences = sorted({_NUMBER.sub("#", file.name) for file in files})
    if len(sequences) > 1:
        names = ", ".join(sequences[:4])
        folder = path if path.is_dir() else path.parent
        raise MediaError(
            f"{path}: holds {len(sequences)} sequences ({names}). "
            f"Choose one by a pattern, such as {folder / sequences[0]}."
        )
    return sorted(files, key=lambda file: natural_key(file.name))


def numbering_gap(files: list[Path]) -> str | None:
    """A sentence about the first missing number of a sequence that otherwise counts by one, or None."""
    last_numbers = [[int(digits) for digits in _NUMBER.findall(file.stem)][-1:] for file in files]
    numbers = [number[0] for number in last_numbers if number]
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) > 1 and 1 in steps:
        before, after = next((a, b) for a, b in pairwise(numbers) if b - a != 1)
        return f"the numbering jumps from {before} to {after}: frames may be missing"
    return None
