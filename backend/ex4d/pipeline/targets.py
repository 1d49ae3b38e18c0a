"""What may be written where: outputs never overwrite or delete what ex4d did not make, nor what they are made from.

Every verb and library function that writes asks here before its work begins. What is ours may be replaced when the user
asks for it (``--overwrite``, ``overwrite=True``); it is recognised by its content, not by its name:

- a take folder by its request.json, which also says which frames belong to it;
- a scene folder by its manifest;
- a movie or an image by its metadata, an .npz by its arrays, a .ply by its comment.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ex4d.media import MediaError, read_metadata, read_png_metadata
from ex4d.media.exr_writer import read_exr_metadata
from ex4d_core.errors import Ex4dError
from ex4d_core.safe_files import is_ordinary_file, open_file
from ex4d_core.scene import PlacedFootage, Scene, is_package, require_replaceable
from ex4d_core.scene_manifest import FILE_NAMES, MANIFEST, is_sha256
from ex4d_core.shot import MAX_FRAMES
from ex4d_core.take_files import ALL_TAKE_FILES, ESTIMATE_FILE, REQUEST_FILE, deep_files_of, frame_file_name

# Endings that name a file: a folder of such a name is not what the user means.
_FILE_ENDINGS = frozenset(
    (
        *(".exr", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dpx", ".bmp", ".webp", ".gif"),
        *(".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mxf"),
        *(".npz", ".npy", ".ply", ".obj", ".abc", ".usd", ".blend", ".json", ".zip"),
    )
)
# Arrays of the .npz files that we write: of a render, and of a camera.
_OUR_ARRAYS = (
    {"color", "mask", "coverage"},
    {"color", "mask", "alpha", "coverage"},
    {"extrinsics", "intrinsics", "width", "height"},
)
# In a folder with results of a job of a backend: the job's name.
_JOB_MARK = ".ex4d-job"
# What file managers leave in folders.
_IGNORED = frozenset(("Thumbs.db", "desktop.ini"))
# The key that starts each of our entries in a movie's metadata.
_METADATA_PREFIX = "ex4d_"

REPLACE = "to replace it, give --overwrite (overwrite=True)"


class OutputError(Ex4dError):
    """An output that is not ours, exists already, is an input, or has an impossible name; the text says what to do."""


def require_file(
    path: Path, *, inputs: Iterable[Path] = (), overwrite: bool = False, beside: Path | None = None
) -> None:
    """Check that a file may be written.

    Args:
        inputs: what the file is made from.
        overwrite: replace a file of ours.
        beside: a movie that is written with it: where that is ours, the file is, which may show no sign of it.

    Raises:
        OutputError: it is one of the inputs, or exists and is not ours or not to be replaced.
    """
    for source in inputs:
        if _is_same(path, source):
            raise OutputError(f"{path} would overwrite its own input {source}; choose another name")
    if not _exists(path):
        return
    if not (is_ours(path) or (beside is not None and is_ours(beside))):
        raise OutputError(f"{path} exists, and ex4d did not make it; choose another name, or move it away")
    if not overwrite:
        raise OutputError(f"{path} exists; {REPLACE}, or choose another name")


def require_folder_name(folder: Path, written: str) -> None:
    """Refuse a folder whose name says that it is a file of some format.

    Args:
        written: what is written there, for the message: "a folder of ...".

    Raises:
        OutputError: see above.
    """
    if folder.suffix.lower() in _FILE_ENDINGS:
        raise OutputError(f"cannot write {folder.name}: the output is {written}; give a name without {folder.suffix}")


def require_movie_name(path: Path) -> None:
    """Refuse a movie that is not an .mp4.

    Raises:
        OutputError: see above.
    """
    if path.suffix.lower() != ".mp4":
        raise OutputError(f"cannot write {path.name}: movies are H.264 in .mp4; give a name that ends in .mp4")


def require_take_folder(
    folder: Path,
    frames: int,
    deep: Iterable[str] = (),
    *,
    inputs: Iterable[Path] = (),
    overwrite: bool = False,
    resume: bool = False,
) -> tuple[Path, ...]:
    """Check that a take may be written into a folder.

    Args:
        frames: of the new take.
        deep: names of its files of more than 8 bits.
        inputs: what it is made from.
        overwrite: replace a take that is there.
        resume: continue a take that is there.

    Returns:
        Files of an earlier take, to be removed when the new one has something to deliver; empty with `resume`.

    Raises:
        OutputError: the folder holds an input, something that is not a take, a take that is not to be replaced, or a
            file that is not part of that take but has a name of the new one.
    """
    require_folder_name(folder, "a folder of 8-bit PNG frames and H.264 .mp4 movies")
    _require_no_input(folder, inputs)
    found = _visible(folder)
    if not found:
        return ()
    if not is_take(folder):
        raise OutputError(f"{folder} holds something else ({min(found)}); choose another folder")
    earlier = files_of_take(folder)
    if not (overwrite or resume):
        state = "a take" if (folder / "take.mp4").exists() else "an unfinished take"
        also = "" if state == "a take" else ", to finish it, --resume (resume=True)"
        raise OutputError(f"{folder} holds {state} already; {REPLACE}{also}, or choose another folder")
    names = {*take_file_names(frames), *deep} - {path.name for path in earlier}
    if foreign := found & names:
        raise OutputError(f"{folder} holds {min(foreign)}, which is not part of its take; choose another folder")
    return () if resume else earlier


def require_scene_folder(folder: Path, *, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Check that a scene package may be written into a folder.

    Raises:
        OutputError: the folder holds an input, or a scene that is not to be replaced.
        SceneError: it holds something else.
    """
    require_folder_name(folder, "a folder with a scene package")
    _require_no_input(folder, inputs)
    require_replaceable(folder)
    if is_package(folder) and not overwrite:
        raise OutputError(f"{folder} holds a scene already; {REPLACE}, or choose another folder")


def require_results_folder(folder: Path, job: str, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Check that a job's results, a take or a scene, may be put into a folder; what is returned is to be removed.

    A folder with some results of the same job takes the others; see `mark_results`.

    Raises:
        OutputError, SceneError: as `require_take_folder` and `require_scene_folder`.
    """
    if is_ordinary_file(mark := folder / _JOB_MARK) and mark.read_text(encoding="utf-8") == job:
        return ()
    if is_package(folder):
        require_scene_folder(folder, overwrite=overwrite)
        return tuple(path for name in (*FILE_NAMES.values(), MANIFEST) if _exists(path := folder / name))
    return require_take_folder(folder, 0, overwrite=overwrite)


def mark_results(folder: Path, job: str) -> None:
    """Mark a folder as one with results of a job, until they can be told from other files.

    Raises:
        LinkError: the mark is there as a link.
    """
    with open_file(folder / _JOB_MARK) as file:
        file.write(job.encode())


def unmark_results(folder: Path) -> None:
    """Remove the mark where the results are a take or a scene by now."""
    if is_take(folder) or is_package(folder):
        (folder / _JOB_MARK).unlink(missing_ok=True)


def remove(files: Iterable[Path]) -> None:
    """Remove files that one of these checks has returned."""
    for path in files:
        path.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether a file is one that ex4d writes, by its content."""
    ending = path.suffix.lower()
    if not path.is_file():
        return False
    if ending in (".mp4", ".mov"):
        try:
            return any(key.startswith(_METADATA_PREFIX) for key in read_metadata(path))
        except MediaError:
            return False
    if ending == ".exr":
        return bool(read_exr_metadata(path))
    if ending == ".png":
        try:
            return any(key.startswith(_METADATA_PREFIX) for key in read_png_metadata(path))
        except MediaError:
            return False
    if ending == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                return {name.removesuffix(".npy") for name in archive.namelist()} in _OUR_ARRAYS
        except (OSError, zipfile.BadZipFile):
            return False
    if ending == ".ply":
        with path.open("rb") as file:
            return b"\ncomment ex4d" in file.read(1024)
    return False


def is_take(folder: Path) -> bool:
    """Whether a folder holds a take of ours, finished or not."""
    return _request_in(folder) is not None


def files_of_take(folder: Path) -> tuple[Path, ...]:
    """The files of the take in a folder that are there, and what an interrupted download left of them and beside."""
    request = _request_in(folder)
    if request is None:
        return ()
    frames = request["camera"]["frames"]
    names = (*take_file_names(frames), *deep_files_of(request, frames))
    # The request last: until then the folder is recognised as a take's.
    ordered = (_JOB_MARK, *(name for name in names if name != REQUEST_FILE), REQUEST_FILE)
    paths = (folder / part for name in ordered for part in (f"{name}.partial", name))
    return tuple(path for path in paths if path.is_file() or path.is_symlink())


def take_file_names(frames: int) -> tuple[str, ...]:
    """Names of all files of a take of so many frames, besides those of more than 8 bits."""
    return (*ALL_TAKE_FILES, ESTIMATE_FILE, *map(frame_file_name, range(frames)))


def files_of(footage: PlacedFootage) -> list[Path]:
    """The files of a scene that a render reads."""
    return footage.paths() if isinstance(footage, Scene) else []


def _request_in(folder: Path) -> Mapping[str, Any] | None:
    """The request of the take in a folder, as it is stored; None in a folder without a take of ours."""
    try:
        values = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
        frames = values["camera"]["frames"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_request = is_sha256(values.get("scene")) and "engine" in values
    return values if is_request and isinstance(frames, int) and 0 < frames <= MAX_FRAMES else None


def _require_no_input(folder: Path, inputs: Iterable[Path]) -> None:
    for source in inputs:
        inside = _exists(folder) and any(_is_same(folder, parent) for parent in _with_parents(source))
        if inside or _is_same(folder, source):
            raise OutputError(f"{folder} holds the input {source}; choose another folder for the output")


def _with_parents(path: Path) -> tuple[Path, ...]:
    """A path and the folders above it, as they are written and as links lead."""
    absolute, resolved = Path(os.path.abspath(path)), path.resolve()
    return (absolute, *absolute.parents, resolved, *resolved.parents)


def _visible(folder: Path) -> set[str]:
    """Names in a folder that a user sees; empty where there is no folder.

    Raises:
        OutputError: it is a file, or a link that leads nowhere.
    """
    if not _exists(folder):
        return set()
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose another folder")
    return {name for name in os.listdir(folder) if not name.startswith(".")} - _IGNORED


def _exists(path: Path) -> bool:
    """Whether there is anything of this name, even a link that leads nowhere."""
    return os.path.lexists(path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, through links too."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False
