"""A folder a clip: ``source.mp4``, and beside it whatever is known: depth, cameras, truth, and what was seen.

clip/source.mp4         the footage: any movie, or a folder of images "source"
clip/depth.*            as `ex4d reconstruct --depth` reads it
clip/source_camera.npz  that filmed it; without it the camera stands still
clip/camera.npz         of the new views
clip/truth.mp4          what it really saw
clip/seen.mp4           white where the footage saw that, too; follows from depth where it is missing
"""

from __future__ import annotations

from pathlib import Path

from ex4d.evaluation.clips import EvaluationClip, horizontal_fov
from ex4d.evaluation.errors import EvaluationError
from ex4d_core.cameras import CameraError, CameraPath


def matches(folder: Path) -> bool:
    """Whether any folder below has a source."""
    return any(_found(one, "source") for one in _folders(folder))


def clips(folder: Path) -> list[EvaluationClip]:
    """Those of all folders below that have a source, by name.

    Raises:
        EvaluationError: a camera file cannot be used.
    """
    return [_clip(one, folder) for one in _folders(folder) if _found(one, "source")]


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.is_dir() and not one.is_symlink())


def _clip(folder: Path, root: Path) -> EvaluationClip:
    name, source = folder.relative_to(root).as_posix(), _found(folder, "source")
    assert source is not None
    camera = None
    try:
        if (folder / "camera.npz").is_file():
            camera = CameraPath.load(folder / "camera.npz")
    except CameraError as error:
        raise EvaluationError(f"{name}: {error}") from error
    return EvaluationClip(
        name,
        source,
        depth=_found(folder, "depth"),
        source_camera=_found(folder, "source_camera"),
        # The lens of the new views is the footage's, unless a file says otherwise.
        fov_degrees=None if camera is None else horizontal_fov(camera),
        camera=camera,
        truth=_found(folder, "truth"),
        seen=_found(folder, "seen"),
    )


def _found(folder: Path, stem: str) -> Path | None:
    """The one file or folder of that name, whatever its ending."""
    found = [one for one in sorted(folder.iterdir()) if one.stem == stem]
    if len(found) > 1:
        raise EvaluationError(f"{folder} has {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None
