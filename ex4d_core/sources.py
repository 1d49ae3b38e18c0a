"""What a reconstruction is made from, as its request names it: files that were sent, and where depth comes from.

A file is the SHA-256 of its content and a label for people, which is compared with names of ours and never becomes a
path. Whatever comes from the wire is checked here, before anything is done with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ex4d_core.messages import MAX_BLOB_BYTES
from ex4d_core.scene import is_sha256
from ex4d_core.shot import LICENCES, MAX_FRAMES, MAX_LABEL, RequestError

DEPTH_LAYOUTS = ("array", "exr", "png", "estimator")
INVALID_DEPTH = ("error", "far")
# Of Blender's mist pass, and the power that each raises the distance to.
MIST_FALLOFFS = {"linear": 1.0, "quadratic": 2.0, "inverse-quadratic": 0.5}
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".mxf", ".ogv")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp", ".bmp")
# A moving source camera is one file of these kinds, or one of COLMAP's pairs under their usual names.
CAMERA_SUFFIXES = (".npz", ".json")
COLMAP_MODELS = (("cameras.bin", "images.bin"), ("cameras.txt", "images.txt"))
_LAYOUT_SUFFIXES = {"array": (".npz", ".npy"), "exr": (".exr",), "png": (".png",)}


@dataclass(frozen=True)
class SourceFile:
    """A file that was sent: its content's name, and a label for people."""

    sha256: str
    size: int
    label: str

    def __post_init__(self) -> None:
        if not is_sha256(self.sha256):
            raise RequestError(f"a file is named by its SHA-256, not {self.sha256!r:.80}")
        if not is_whole(self.size) or not 1 <= self.size <= MAX_BLOB_BYTES:
            raise RequestError(f"a file has 1 to {MAX_BLOB_BYTES} bytes, not {self.size!r:.80}")
        if not isinstance(self.label, str) or len(self.label) > MAX_LABEL or "\0" in self.label:
            raise RequestError(f"a file's label must be text of at most {MAX_LABEL} characters")

    @property
    def suffix(self) -> str:
        """The kind of file that its label promises, with a dot; "" if it promises none."""
        return Path(self.label.replace("\\", "/")).suffix.lower()


@dataclass(frozen=True)
class MistPass:
    """What Blender's world had its mist pass set to when it was rendered.

    Attributes:
        start: distance at which mist begins, in the render's units.
        depth: distance over which it goes from 0 to 1.
        falloff: one of `MIST_FALLOFFS`.
    """

    start: float
    depth: float
    falloff: str = "linear"

    def __post_init__(self) -> None:
        if self.start != 0:
            require_positive("mist start", self.start)
        require_positive("mist depth", self.depth)
        if self.depth is None or self.start is None:
            raise RequestError("a mist pass has a start and a depth")
        if self.falloff not in MIST_FALLOFFS:
            raise RequestError(f"mist falloff must be one of {', '.join(MIST_FALLOFFS)}, not {self.falloff!r:.80}")


@dataclass(frozen=True)
class DepthRequest:
    """Where depth comes from.

    Attributes:
        layout: one of `DEPTH_LAYOUTS`: "array" (one .npz or .npy), "exr" or "png" (a file for each frame, in order), or
            "estimator".
        files: those of the layout; none for an estimator.
        estimator: its name, for layout "estimator".
        scale: depth in scene units for what the files say; None takes the files' word.
        inverse: the files hold 1 / depth.
        invalid: what to do with depths that cannot be: one of `INVALID_DEPTH`.
        licence: what the scene is for, one of `LICENCES`: some estimators are for research only.
        mist: the files are a mist pass, made with these settings; for layout "exr".
    """

    layout: str
    files: tuple[SourceFile, ...] = ()
    estimator: str = ""
    scale: float | None = None
    inverse: bool = False
    invalid: str = "error"
    licence: str = "commercial"
    mist: MistPass | None = None

    def __post_init__(self) -> None:
        if self.licence not in LICENCES:
            raise RequestError(f"licence must be one of {', '.join(LICENCES)}, not {self.licence!r:.80}")
        if self.layout not in DEPTH_LAYOUTS:
            raise RequestError(f"depth layout must be one of {', '.join(DEPTH_LAYOUTS)}, not {self.layout!r:.80}")
        if self.invalid not in INVALID_DEPTH:
            raise RequestError(f"invalid depth must be one of {', '.join(INVALID_DEPTH)}, not {self.invalid!r:.80}")
        if not isinstance(self.inverse, bool):
            raise RequestError(f"inverse must be true or false, not {self.inverse!r:.80}")
        if not isinstance(self.estimator, str) or len(self.estimator) > MAX_LABEL:
            raise RequestError(f"an estimator's name is text of at most {MAX_LABEL} characters")
        require_positive("depth scale", self.scale)
        object.__setattr__(self, "files", tuple(self.files))
        if self.mist is not None and (self.layout != "exr" or self.inverse):
            raise RequestError("a mist pass is EXR files, and not inverse")
        if self.layout == "estimator":
            if not self.estimator or self.files:
                raise RequestError("an estimator needs a name and no depth files")
            return
        suffixes = _LAYOUT_SUFFIXES[self.layout]
        wrong = next((one.label for one in self.files if one.suffix not in suffixes), None)
        if not self.files or wrong is not None or (self.layout == "array" and len(self.files) > 1):
            found = "none" if not self.files else repr(wrong) if wrong is not None else f"{len(self.files)} files"
            wants = "one file" if self.layout == "array" else "a file for each frame"
            raise RequestError(f"depth as {self.layout} wants {wants}, {' or '.join(suffixes)}, not {found}")


def name_for_people(name: str) -> str:
    """A file's name as text that goes into any document: on old shares it may hold bytes that are no UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def files_to_wire(files: Sequence[SourceFile]) -> dict[str, Any]:
    """Three values for any number of files: a long clip is many pictures, and a header may hold few maps and lists."""
    return {
        "sha256": bytes.fromhex("".join(file.sha256 for file in files)),
        "size": np.array([file.size for file in files], "<u8").tobytes(),
        "label": "\0".join(file.label for file in files),
    }


def files_from_wire(values: object) -> tuple[SourceFile, ...]:
    """Check and rebuild what `files_to_wire` made.

    Raises:
        RequestError: its parts do not go together, there are too many, or one is no file.
    """
    if not isinstance(values, Mapping) or set(values) != {"sha256", "size", "label"}:
        raise RequestError("files must be a map of sha256, size and label")
    hashes, sizes, labels = (values[name] for name in ("sha256", "size", "label"))
    if not (isinstance(hashes, bytes) and isinstance(sizes, bytes) and isinstance(labels, str)):
        raise RequestError("files must have their hashes and sizes as bytes, and their labels as text")
    count = len(sizes) // 8
    if count > MAX_FRAMES:
        raise RequestError(f"a scene may have {MAX_FRAMES} files, not {count}")
    names = labels.split("\0") if count else []
    if (len(hashes), len(sizes), len(names)) != (32 * count, 8 * count, count):
        raise RequestError(
            f"every file has a SHA-256 of 32 bytes, a size of 8 and a label; {len(hashes)} bytes of hashes, "
            f"{len(sizes)} of sizes and {len(names)} labels do not go together"
        )
    return tuple(
        SourceFile(hashes[32 * k : 32 * k + 32].hex(), size, label)
        for k, (size, label) in enumerate(zip(np.frombuffer(sizes, "<u8").tolist(), names, strict=True))
    )


def construct(kind: type, values: object) -> Any:
    """A dataclass of a map of its fields.

    Raises:
        RequestError: no map, or a field too many, too few or out of range.
    """
    if not isinstance(values, Mapping):
        raise RequestError(f"{kind.__name__} must be a map of fields, not {type(values).__name__}")
    try:
        return kind(**values)
    except TypeError as error:
        raise RequestError(f"{kind.__name__} has a field too many, too few, or of the wrong type: {error}") from error


def is_whole(value: object) -> bool:
    """Whether it is an int, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_positive(name: str, value: object) -> None:
    """Raises RequestError for what is neither None nor a finite number above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise RequestError(f"{name} must be a number above 0, not {value!r:.80}")
