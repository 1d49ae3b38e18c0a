"""What a scene is reconstructed from, as a request names it: source files and the settings of their depth.

A source file is the SHA-256 of its content and a label for people, which is only compared with known names and never
becomes a path. All of it is checked here when it arrives over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np

from ex4d_core.depth_mapping import FarLimit, Offset
from ex4d_core.errors import RequestError
from ex4d_core.job_status import MAX_BLOB_BYTES
from ex4d_core.licences import Licence
from ex4d_core.scene_manifest import is_sha256
from ex4d_core.schema import Length, Option, Range, Settings
from ex4d_core.shot import MAX_FRAMES, MAX_LABEL

DepthLayout = Literal["array", "exr", "png", "video", "estimator"]
DepthValues = Literal["auto", "depth", "distance", "disparity"]
InvalidDepth = Literal["error", "far"]
NoiseFilter = Literal["auto", "on", "off"]
MistFalloff = Literal["linear", "quadratic", "inverse-quadratic"]

DEPTH_LAYOUTS: tuple[str, ...] = get_args(DepthLayout)
INVALID_DEPTH: tuple[str, ...] = get_args(InvalidDepth)
# The power that each falloff of Blender's mist pass raises the distance to.
MIST_FALLOFFS: dict[MistFalloff, float] = {"linear": 1.0, "quadratic": 2.0, "inverse-quadratic": 0.5}
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".mxf", ".ogv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp", ".bmp", ".dpx")
# A moving source camera is one file of these kinds, or one of COLMAP's models under their usual names. Those with
# points come first; older sides do not know them.
CAMERA_SUFFIXES = (".npz", ".json")
COLMAP_MODELS = (
    ("cameras.bin", "images.bin", "points3D.bin"),
    ("cameras.txt", "images.txt", "points3D.txt"),
    ("cameras.bin", "images.bin"),
    ("cameras.txt", "images.txt"),
)
LAYOUT_SUFFIXES: dict[str, tuple[str, ...]] = {
    "array": (".npz", ".npy"),
    "exr": (".exr",),
    "png": (".png",),
    "video": VIDEO_SUFFIXES,
}
SINGLE_FILE_LAYOUTS = ("array", "video")
# Where COLMAP's programs, and those around it, put models in a project's folder.
_COLMAP_FOLDERS = (".", "sparse", "colmap", "colmap/sparse", "dense/sparse", "distorted/sparse")


@dataclass(frozen=True)
class SourceFile(Settings):
    """A file that was sent: its content's hash, its size in bytes, and a label for people."""

    sha256: str
    size: Annotated[int, Range(1, MAX_BLOB_BYTES)]
    label: Annotated[str, Length(MAX_LABEL)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_sha256(self.sha256):
            raise RequestError(f"sha256 must be a SHA-256 in hexadecimal, not {self.sha256!r:.80}")
        if "\0" in self.label:
            raise RequestError(f"label must be text without NUL characters, not {self.label!r:.80}")

    @property
    def suffix(self) -> str:
        """The file type that its label promises, with a dot; "" if it promises none."""
        return Path(self.label.replace("\\", "/")).suffix.lower()


@dataclass(frozen=True)
class MistPass(Settings):
    """The settings of Blender's world that a mist pass was rendered with.

    Attributes:
        start: distance at which mist begins, in the render's units.
        depth: distance over which it rises from 0 to 1.
        falloff: how it rises.
    """

    start: Annotated[float, Range(0)]
    depth: Annotated[float, Range(above=0)]
    falloff: MistFalloff = "linear"


@dataclass(frozen=True)
class DepthSettings(Settings):
    """Where depth comes from, apart from its files.

    Attributes:
        layout: "array" (one .npz or .npy), "exr" or "png" (a file for each frame, in order), "video", or "estimator".
        estimator: its name, or "auto", for layout "estimator".
        scale: depth in scene units per unit of the files; None uses the files' own scale.
        inverse: the files hold 1 / depth.
        values: what the files hold: "depth" along z, "distance" along each pixel's ray, or "disparity", which is 1 /
            depth up to an unknown factor and offset. "auto" knows the files of some tools by their arrays and else
            takes them for depth. Older sides understand "auto", since it is not sent.
        key: array of an .npz, or channel of an EXR; "" finds it.
        invalid: what to do with invalid depth (NaN, infinite, zero, negative): fail, or take the farthest of the frame.
        licence: what the scene is for, as some estimators are for research only. None leaves it to the machine.
        mist: the files are a mist pass, rendered with these settings; for layout "exr".
        refine_edges: sharpen blurred depth edges along the image's.
        temporal_alignment: align per-image depth over time.
        full_precision: run the estimator in float32 on a GPU, too.
        offset, far_limit: see `ex4d_core.depth_mapping.DepthMapping`. None for the offset fits it to a source camera
            that moves, and else adds nothing; None for the far limit is the estimator's own, and none for files.
        camera_fit: fit relative depth to a source camera that moves: its unit, and the offset where none is given.
        noise_filter: smooth depth whose pixels are noisy: what is estimated ("auto"), that of files as well, or none.

    Raises:
        RequestError: a field of the wrong type or out of range, or fields that do not go together.
    """

    layout: DepthLayout
    estimator: Annotated[
        str, Length(MAX_LABEL), Option("depth estimator for footage without --depth; `ex4d models list` names them")
    ] = ""
    scale: Annotated[
        float | None,
        Range(above=0),
        Option("multiply the files' values; needed for PNG", flag="--depth-scale", metavar="FACTOR"),
    ] = None
    inverse: Annotated[bool, Option("the files hold 1 / depth", flag="--inverse-depth")] = False
    values: Annotated[
        DepthValues,
        Option(
            "what the files hold: depth along z; distance along each pixel's ray; disparity, which is 1 / depth up to "
            "an unknown factor and offset (larger is nearer); auto knows some tools' files, and else takes depth",
            flag="--depth-values",
        ),
    ] = "auto"
    invalid: Annotated[
        InvalidDepth,
        Option(
            "invalid depth (NaN, infinite, zero, negative): fail, or replace it by the frame's farthest depth",
            flag="--invalid-depth",
        ),
    ] = "error"
    licence: Annotated[
        Licence | None,
        Option(
            "intended use; commercial excludes research-only estimators (default: $EX4D_LICENCE, else commercial)",
            aliases=("--license",),
        ),
    ] = None
    mist: MistPass | None = None
    key: Annotated[
        str,
        Length(MAX_LABEL),
        Option("array of an .npz, or channel of an EXR, that holds the depth", flag="--depth-key", metavar="NAME"),
    ] = ""
    refine_edges: Annotated[bool, Option("leave blurred depth edges as they are", flag="--no-edges")] = True
    temporal_alignment: Annotated[
        bool,
        Option("do not align per-image depth over time", flag="--no-temporal-alignment", aliases=("--no-steady",)),
    ] = True
    full_precision: Annotated[bool, Option("estimate in float32 on a GPU too: slower, more memory")] = False
    offset: Annotated[
        Offset | None,
        Option(
            "add this share of the nearest point's disparity to all disparity: above 0 the background comes nearer, "
            "below 0 it recedes (default: fitted to a source camera that moves, else 0)",
            flag="--depth-offset",
            metavar="SHARE",
        ),
    ] = None
    far_limit: Annotated[
        FarLimit | None,
        Option("the farthest depth, as a multiple of the nearest (default: the estimator's own)", metavar="TIMES"),
    ] = None
    camera_fit: Annotated[
        bool, Option("do not fit relative depth to a source camera that moves", flag="--no-camera-fit")
    ] = True
    noise_filter: Annotated[
        NoiseFilter,
        Option("smooth noise in the pixels of depth: in estimated depth (auto), in files as well (on), or not at all"),
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mist is not None and (self.layout != "exr" or self.inverse):
            raise RequestError(f"a mist pass is EXR files, and not inverse; not layout {self.layout}")
        if self.values != "auto":
            self._check_values()
        if self.layout == "estimator" and not self.estimator:
            raise RequestError("estimator must be a name, or auto, for depth of layout estimator")

    def _check_values(self) -> None:
        what = f"values={self.values}"
        if self.layout == "estimator":
            raise RequestError(f"{what} says what depth files hold, and an estimator has none; leave it out")
        if self.mist is not None:
            raise RequestError(f"{what} does not go with a mist pass, which holds mist; leave one of them out")
        if self.values == "disparity" and (self.inverse or self.scale is not None):
            raise RequestError(
                "values=disparity has an unknown factor and offset, so neither scale nor inverse applies; leave them "
                "out, or values where the files hold 1 / depth exactly"
            )

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON; without what is at its default and older sides refuse."""
        values = super().to_wire()
        if self.values == "auto":
            del values["values"]
        for name, default in (("offset", None), ("far_limit", None), ("camera_fit", True)):
            if values[name] == default:
                del values[name]
        if self.noise_filter == "auto":
            del values["noise_filter"]
        return values


def depth_layout(path: Path) -> DepthLayout:
    """The layout of depth files from the name of a file, a folder of files or a pattern; readers look closer."""
    suffix = path.suffix.lower()
    if path.is_dir():
        suffix = ".exr" if any(one.suffix.lower() == ".exr" for one in path.iterdir()) else ".png"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "exr" if suffix == ".exr" else "png" if suffix == ".png" else "array"


def require_depth_files(layout: str, files: Sequence[SourceFile]) -> None:
    """Raises RequestError where the files are not what a layout consists of."""
    if layout == "estimator":
        if files:
            raise RequestError(f"an estimator takes no depth files, but {len(files)} are given")
        return
    suffixes = LAYOUT_SUFFIXES[layout]
    wrong = next((one.label for one in files if one.suffix not in suffixes), None)
    if not files or wrong is not None or (layout in SINGLE_FILE_LAYOUTS and len(files) > 1):
        found = "none" if not files else repr(wrong) if wrong is not None else f"{len(files)} files"
        wants = "one file" if layout in SINGLE_FILE_LAYOUTS else "a file for each frame"
        raise RequestError(f"depth of layout {layout} must be {wants}, {' or '.join(suffixes)}, not {found}")


def name_for_people(name: str) -> str:
    """A file's name as text that any document can hold: on old shares it may contain bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def files_to_wire(files: Sequence[SourceFile]) -> dict[str, Any]:
    """Three values for any number of files: a long clip has many images, and a header may hold few maps and lists."""
    return {
        "sha256": bytes.fromhex("".join(file.sha256 for file in files)),
        "size": np.array([file.size for file in files], "<u8").tobytes(),
        "label": "\0".join(file.label for file in files),
    }


def files_from_wire(values: object) -> tuple[SourceFile, ...]:
    """Check and rebuild what `files_to_wire` gave.

    Raises:
        RequestError: its parts do not go together, there are too many, or one is invalid.
    """
    if not isinstance(values, Mapping) or set(values) != {"sha256", "size", "label"}:
        raise RequestError("files must be a map of sha256, size and label")
    hashes, sizes, labels = (values[name] for name in ("sha256", "size", "label"))
    if not (isinstance(hashes, bytes) and isinstance(sizes, bytes) and isinstance(labels, str)):
        raise RequestError("files must have their hashes and sizes as bytes, and their labels as text")
    count = len(sizes) // 8
    if count > MAX_FRAMES:
        raise RequestError(f"a scene may have at most {MAX_FRAMES} files, not {count}")
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


def colmap_folder(chosen: Path) -> Path:
    """The folder of a COLMAP model: `chosen`, or the one in a project's folder that has the most images.

    Args:
        chosen: a folder, or a file of a model, which is its own answer.

    Returns:
        `chosen` itself where no model is found.
    """
    if not chosen.is_dir():
        return chosen
    for place in _COLMAP_FOLDERS:
        models = [folder for folder in (chosen / place, *sorted((chosen / place).glob("[0-9]*"))) if _is_model(folder)]
        if models:
            return max(models, key=_size_of_images)
    return chosen


def _is_model(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in COLMAP_MODELS)


def _size_of_images(folder: Path) -> int:
    """Bytes: of models of one clip, the largest file has the most images."""
    file = folder / "images.bin"
    return (file if file.is_file() else folder / "images.txt").stat().st_size
