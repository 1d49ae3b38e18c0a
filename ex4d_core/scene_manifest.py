"""The manifest of a scene package: what is in the package, where it comes from, and its older versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from ex4d_core import __version__
from ex4d_core.depth_mapping import DepthMapping, mapping_of_range
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.lens_distortion import LensDistortion

FORMAT = "ex4d-scene"
VERSION = 5
_VERSION_WITH_MASK, _OLDEST_VERSION = 4, 3
MANIFEST = "manifest.json"

# Names of a package's parts (keys of `SceneManifest.files`) and the files they are kept in.
FILE_NAMES = {
    "color": "color.npy",
    "deep_color": "deep_color.npy",
    "depth": "depth.npy",
    "source_camera": "source_camera.npz",
    "motion_mask": "motion_mask.npy",
    "footage": "footage.mp4",
    "positions": "mesh.pc2",
    "topology": "mesh_topology.npz",
}
RENDER_FILES = ("color", "depth", "source_camera")
# What a backend needs of those scenes that have it. Programs that read up to version 3 do not know it.
OPTIONAL_RENDER_FILES = ("motion_mask",)

# A larger file is not a manifest of ours: about 1 KB is usual.
MAX_MANIFEST_BYTES = 64 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SceneError(Ex4dError, ValueError):
    """A scene package that is missing, incomplete, of another version, or contradicts its manifest."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a package: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class FootageOrigin:
    """The footage that a scene was reconstructed from, so that a take can be traced to it.

    Attributes:
        name: of the file or folder.
        sha256: of the file, or of a sequence's files one after the other; "" where unknown.
        timecode: of its first frame, such as "01:00:00:00"; "" if it has none.
    """

    name: str = ""
    sha256: str = ""
    timecode: str = ""


@dataclass(frozen=True)
class SceneManifest:
    """The description of a scene package.

    Attributes:
        name: for people.
        frames, width, height: of the footage.
        fps: frames per second.
        convention: "centered" or "reference"; how the DW-Mesh was built.
        depth_range: smallest and largest depth of the clip, scene units.
        subject_distance: of the point that EX-4D's moves turn around, scene units.
        depth_scale: "metric" (units are metres) or "relative".
        provenance: where footage, depth and focal length came from, and the licences they rest on; for people.
        files: part name (see `FILE_NAMES`) to `FileEntry`.
        origin: the footage, for programs.
        depth_mapping: how relative disparity became this depth; None where depth was not made from disparity.
        color_space: of the deep colours, by its name in an OpenColorIO configuration; "" in scenes of 8 bits.
        middle_distance: median depth of what stands out in the middle third of frame 0, scene units, which our moves
            turn around; None in scenes of before it, whose moves keep `subject_distance`.
        distortion: of the footage's lens, which is undone in the scene's pictures and depth; None for footage without.
    """

    name: str
    frames: int
    width: int
    height: int
    fps: Fraction
    convention: str
    depth_range: tuple[float, float]
    subject_distance: float
    depth_scale: str = "relative"
    provenance: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    origin: FootageOrigin = FootageOrigin()
    depth_mapping: DepthMapping | None = None

    @property
    def mapping(self) -> DepthMapping:
        """How the scene's depth follows from relative disparity: as recorded, or else with nothing added to it."""
        return self.depth_mapping or mapping_of_range(*self.depth_range)

    middle_distance: float | None = None
    color_space: str = ""
    distortion: LensDistortion | None = None

    @property
    def is_deep(self) -> bool:
        """Whether the scene keeps the footage's colours as half floats, beside those of 8 bits."""
        return "deep_color" in self.files

    @property
    def pivot_distance(self) -> float:
        """Of the point that our moves turn around in frame 0, unless another is chosen; see `ex4d_core.pivots`."""
        return self.subject_distance if self.middle_distance is None else self.middle_distance

    @property
    def render_files(self) -> tuple[str, ...]:
        """The parts that a backend needs of this scene."""
        return (*RENDER_FILES, *(part for part in OPTIONAL_RENDER_FILES if part in self.files))

    def files_for(self, *, deep: bool) -> tuple[str, ...]:
        """`render_files`, and what a backend needs for deep colours, if they are to be drawn."""
        return (*self.render_files, "deep_color") if deep and self.is_deep else self.render_files

    @property
    def version(self) -> int:
        """The oldest version whose readers understand this manifest."""
        if self.is_deep or self.distortion is not None:
            return VERSION
        has_mask = self.files.keys() & set(OPTIONAL_RENDER_FILES)
        return _VERSION_WITH_MASK if has_mask else _OLDEST_VERSION

    def to_json(self) -> bytes:
        """Canonical bytes, whose SHA-256 names the scene."""
        fields = asdict(self)
        fields["fps"] = [self.fps.numerator, self.fps.denominator]
        if self.depth_mapping is None:
            del fields["depth_mapping"]
        if not self.is_deep:
            del fields["color_space"]
        if self.distortion is None:
            del fields["distortion"]
        document = {"format": FORMAT, "version": self.version, **fields}
        return json.dumps(document, indent=1, sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> SceneManifest:
        """Parse and check a manifest; one of an older version is migrated.

        Raises:
            SceneError: not a manifest, of a newer version, or with impossible values.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise SceneError(f"a scene manifest of {len(data)} bytes is over the limit of {MAX_MANIFEST_BYTES}")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SceneError(f"the scene manifest is not JSON: {error}") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise SceneError(f"this is not a scene manifest: it does not say format {FORMAT!r}")
        _migrate(document)
        try:
            document["fps"] = Fraction(*document["fps"])
            document["depth_range"] = tuple(float(value) for value in document["depth_range"])
            document["files"] = {name: FileEntry(**entry) for name, entry in document["files"].items()}
            document["origin"] = FootageOrigin(**document["origin"])
            if (mapping := document.get("depth_mapping")) is not None:
                document["depth_mapping"] = DepthMapping.from_wire(mapping)
            if (distortion := document.get("distortion")) is not None:
                document["distortion"] = LensDistortion.from_wire(distortion)
            manifest = SceneManifest(**document)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RequestError) as error:
            raise SceneError(f"the scene manifest is damaged: {error!r}; reconstruct the scene again") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        sizes = (self.frames, self.width, self.height, *(entry.size for entry in self.files.values()))
        # In Python true and false are whole numbers.
        if any(type(size) is not int or size < 1 for size in sizes):
            raise SceneError(f"the scene manifest has sizes that are not positive whole numbers: {sizes}")
        texts = (self.name, self.convention, self.depth_scale, self.color_space, *vars(self.origin).values())
        if any(not isinstance(text, str) for text in texts):
            raise SceneError(f"the scene manifest has names that are not text: {texts}")
        distances = (*self.depth_range, self.subject_distance)
        if len(distances) != 3 or not all(_is_positive(distance) for distance in distances):
            raise SceneError(f"the scene manifest has distances that are not three positive numbers: {distances}")
        if self.middle_distance is not None and not _is_positive(self.middle_distance):
            raise SceneError(f"the scene manifest has a middle_distance that is not positive: {self.middle_distance!r}")
        unknown = set(self.files) - set(FILE_NAMES)
        if unknown:
            raise SceneError(f"the scene manifest names unknown parts {sorted(unknown)}")
        missing = set(RENDER_FILES) - set(self.files)
        if missing:
            raise SceneError(f"the scene manifest lacks {sorted(missing)}; reconstruct the scene again")
        for name, entry in self.files.items():
            if not is_sha256(entry.sha256):
                raise SceneError(f"the scene manifest's checksum of {name} is not a SHA-256: {entry.sha256!r}")
        if self.fps <= 0:
            raise SceneError(f"the scene's frame rate is {self.fps}; it must be positive")


def _name_the_footage(document: dict[str, Any]) -> None:
    """Version 2 has the footage's name, hash and timecode for programs; 1 had its name only, for people."""
    document["origin"] = {"name": document.get("provenance", {}).get("footage", "")}


def _keep_the_subject(document: dict[str, Any]) -> None:
    """Version 3 has the distance of the picture's middle; the moves of older scenes keep the subject's."""
    document.setdefault("middle_distance", None)


def _without_mask(document: dict[str, Any]) -> None:
    """Version 4 may have a mask of what moves; a scene without one is still written as version 3."""


def _without_deep_color_and_distortion(document: dict[str, Any]) -> None:
    """Version 5 has colours as half floats, or names the lens distortion that is undone, or both.

    A scene with neither is still written as an older one.
    """


# What brings a manifest of each older version to the next one. The bytes on disk stay as they are: their SHA-256 names
# the scene in takes, in .blend files and in job databases.
_MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], None]] = {
    1: _name_the_footage,
    2: _keep_the_subject,
    3: _without_mask,
    4: _without_deep_color_and_distortion,
}


def _migrate(document: dict[str, Any]) -> None:
    """Take the version out of a manifest, and bring the rest to `VERSION`.

    Raises:
        SceneError: the version is newer, or none.
    """
    version = document.pop("version", None)
    if type(version) is not int or version < min(_MIGRATIONS):
        raise SceneError(f"the scene manifest has no valid version ({version!r}); reconstruct the scene again")
    if version > VERSION:
        raise SceneError(
            f"the scene has version {version}, and this program ({__version__}) reads up to version {VERSION}: "
            "update ex4d, or reconstruct the scene again with this one"
        )
    for older in range(version, VERSION):
        try:
            _MIGRATIONS[older](document)
        except (AttributeError, TypeError) as error:
            raise SceneError(f"the scene manifest is damaged: {error!r}; reconstruct the scene again") from error


def _is_positive(number: object) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < float("inf")


def is_sha256(text: object) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal, so that it cannot be part of a path."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None
