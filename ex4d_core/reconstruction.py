"""Footage to a scene package, made by the backend: the request for it, and its conversation from this side of the wire.

Files are blobs on the wire; their names travel along as labels for people and never become paths over there. Footage
and depth are sent once: the scene's own colour and depth are the backend's already when a take is made of them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ex4d_core.client import Conversation
from ex4d_core.jobs import JobConversation
from ex4d_core.messages import MAX_BLOB_BYTES, JobEvent, JobStatus
from ex4d_core.scene import FILE_NAMES, MANIFEST, Scene, SceneError, is_sha256, move_package
from ex4d_core.shot import CONVENTIONS, LICENCES, MAX_FRAMES, MAX_LABEL, RequestError, ShotRequest
from ex4d_core.transfers import hash_file

KIND = "reconstruction"
# What a reconstruction announces; a name from the wire is only ever compared with these.
PACKAGE_FILES = (*FILE_NAMES.values(), MANIFEST)

DEPTH_LAYOUTS = ("array", "exr", "png", "estimator")
INVALID_DEPTH = ("error", "far")
MIST_FALLOFFS = ("linear", "quadratic", "inverse-quadratic")
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
        if not _is_whole(self.size) or not 1 <= self.size <= MAX_BLOB_BYTES:
            raise RequestError(f"a file has 1 to {MAX_BLOB_BYTES} bytes, not {self.size!r:.80}")
        if not isinstance(self.label, str) or len(self.label) > MAX_LABEL:
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
            _require_positive("mist start", self.start)
        _require_positive("mist depth", self.depth)
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
        _require_positive("depth scale", self.scale)
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


@dataclass(frozen=True)
class ReconstructionRequest:
    """A scene to make of footage.

    Attributes:
        footage: one video, or pictures in their order.
        depth: where depth comes from.
        name: of the scene, for people.
        fps: rate of pictures; a video has its own.
        fov_degrees: the lens's horizontal field of view; None takes what the depth files say, or a guess.
        convention: how the DW-Mesh for display is built.
        camera: the moving camera that filmed it: one .npz or transforms.json, or one of `COLMAP_MODELS`; none for a
            camera that stood still.
        camera_scale: multiplies that camera's positions.
    """

    footage: tuple[SourceFile, ...]
    depth: DepthRequest
    name: str
    fps: tuple[int, int] | None = None
    fov_degrees: float | None = None
    convention: str = "centered"
    camera: tuple[SourceFile, ...] = ()
    camera_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "footage", tuple(self.footage))
        object.__setattr__(self, "camera", tuple(self.camera))
        suffixes = {one.suffix for one in self.footage}
        video = len(self.footage) == 1 and suffixes <= set(VIDEO_SUFFIXES)
        if not self.footage or not (video or (suffixes <= set(PICTURE_SUFFIXES) and len(suffixes) == 1)):
            raise RequestError(
                f"footage is one video ({', '.join(VIDEO_SUFFIXES)}) or pictures of one kind, not "
                f"{', '.join(sorted(suffixes)) or 'nothing'}"
            )
        if max(len(self.footage), len(self.depth.files)) > MAX_FRAMES:
            raise RequestError(f"a scene may have {MAX_FRAMES} frames, not {len(self.footage)}")
        if not isinstance(self.name, str) or not 0 < len(self.name) <= MAX_LABEL:
            raise RequestError(f"a scene's name is text of 1 to {MAX_LABEL} characters")
        if self.fps is not None:
            fps = tuple(self.fps)
            if video:
                raise RequestError("a video has its own rate; leave fps out")
            if len(fps) != 2 or any(not _is_whole(one) or not 0 < one < 2**31 for one in fps):
                raise RequestError(f"fps must be two whole numbers above 0, not {self.fps!r:.80}")
            object.__setattr__(self, "fps", fps)
        _require_positive("fov_degrees", self.fov_degrees)
        if self.fov_degrees is not None and self.fov_degrees >= 180:
            raise RequestError(f"fov_degrees must be below 180, not {self.fov_degrees:g}")
        if self.convention not in CONVENTIONS:
            raise RequestError(f"convention must be one of {', '.join(CONVENTIONS)}, not {self.convention!r:.80}")
        names = tuple(one.label for one in self.camera)
        alone = len(names) == 1 and self.camera[0].suffix in CAMERA_SUFFIXES
        if names and not alone and names not in COLMAP_MODELS:
            wants = " or ".join([*CAMERA_SUFFIXES, *(" with ".join(pair) for pair in COLMAP_MODELS)])
            raise RequestError(f"a source camera is {wants}, not {', '.join(names)!r:.80}")
        if self.camera_scale is None:
            raise RequestError("camera_scale must be a number above 0, not None")
        _require_positive("camera_scale", self.camera_scale)

    @property
    def is_video(self) -> bool:
        """Whether the footage is one video, and not pictures."""
        return len(self.footage) == 1 and self.footage[0].suffix in VIDEO_SUFFIXES

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All that must be sent."""
        return (*self.footage, *self.depth.files, *self.camera)

    # A job list shows reconstructions beside shots.
    engine = KIND
    scene = ""

    @property
    def label(self) -> str:
        return self.name

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack; what older backends do not know is left out where it says nothing."""
        values = {"kind": KIND, **asdict(self)}
        if self.depth.mist is None:
            del values["depth"]["mist"]
        if not self.camera:
            del values["camera"], values["camera_scale"]
        return values

    @staticmethod
    def from_wire(values: object) -> ReconstructionRequest:
        """Check and rebuild a request.

        Raises:
            RequestError: any field is missing, unknown, of the wrong type or out of range.
        """
        if not isinstance(values, Mapping):
            raise RequestError(f"a reconstruction must be a map of fields, not {type(values).__name__}")
        known = {name: value for name, value in values.items() if name != "kind"}
        depth = known.get("depth")
        if not isinstance(depth, Mapping):
            raise RequestError("depth is missing")
        known["footage"] = _files_from_wire(known.get("footage"))
        known["camera"] = _files_from_wire(known.get("camera", ()))
        mist = None if depth.get("mist") is None else _construct(MistPass, depth["mist"])
        files = _files_from_wire(depth.get("files", ()))
        known["depth"] = _construct(DepthRequest, {**depth, "files": files, "mist": mist})
        return _construct(ReconstructionRequest, known)


def request_from_wire(values: object) -> ShotRequest | ReconstructionRequest:
    """Check and rebuild whatever may be submitted; what names no kind is a shot.

    Raises:
        RequestError: see `ShotRequest.from_wire`, `ReconstructionRequest.from_wire`.
    """
    if isinstance(values, Mapping) and "kind" in values:
        if values["kind"] != KIND:
            raise RequestError(f"this backend makes no {values['kind']!r:.80}; is the client newer than it?")
        return ReconstructionRequest.from_wire(values)
    return ShotRequest.from_wire(values)


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is to be reconstructed, while its files have not been hashed yet.

    Attributes:
        footage: one video, or pictures in their order.
        depth_files, camera_files: as `DepthRequest.files` and `ReconstructionRequest.camera`, on this machine.
        the others: as in `DepthRequest` and `ReconstructionRequest`.
    """

    footage: tuple[Path, ...]
    depth_files: tuple[Path, ...]
    layout: str
    name: str
    estimator: str = ""
    scale: float | None = None
    inverse: bool = False
    invalid: str = "error"
    licence: str = "commercial"
    fps: tuple[int, int] | None = None
    fov_degrees: float | None = None
    mist: MistPass | None = None
    camera_files: tuple[Path, ...] = ()
    camera_scale: float = 1.0

    @property
    def files(self) -> tuple[Path, ...]:
        """All that must be sent."""
        return (*self.footage, *self.depth_files, *self.camera_files)

    def request(self, hashes: Mapping[Path, str]) -> ReconstructionRequest:
        """The request, once every file's SHA-256 is known.

        Raises:
            RequestError: the plan cannot be carried out.
        """

        def named(paths: Sequence[Path]) -> tuple[SourceFile, ...]:
            return tuple(SourceFile(hashes[path], path.stat().st_size, path.name[-MAX_LABEL:]) for path in paths)

        depth = DepthRequest(
            self.layout,
            named(self.depth_files),
            self.estimator,
            self.scale,
            self.inverse,
            self.invalid,
            self.licence,
            self.mist,
        )
        return ReconstructionRequest(
            named(self.footage),
            depth,
            self.name,
            self.fps,
            self.fov_degrees,
            camera=named(self.camera_files),
            camera_scale=self.camera_scale,
        )


@dataclass
class Reconstruction(JobConversation):
    """One reconstruction, whose package appears in ``folder`` when all of it is there.

    Attributes:
        folder: where the scene package will be; its parts arrive in a hidden folder beside it.
        hashed, hash_size: bytes of the source files looked through, and to look through.
        request: what was asked for, once all files have been looked through.
        arrivals: SHA-256 and size of the files that arrived, by name.
    """

    folder: Path
    hashed: int = 0
    hash_size: int = 0
    request: ReconstructionRequest | None = None
    arrivals: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        """Where the parts are until the package is whole."""
        return self.folder.parent / f".{self.folder.name}.{self.key[:8]}.partial"

    def conversation(self, plan: ReconstructionPlan | None) -> Conversation[JobStatus]:
        """From hashing the files to the package in its place; returns the job's final status.

        Args:
            plan: what to reconstruct; None when the job was submitted earlier.

        Raises:
            SceneError: what arrived is no whole package, or the folder is in use.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        if not self.job:
            hashes = yield from self._hash(plan.files)
            self.request = plan.request(hashes)
            blobs: dict[str, Path | bytes] = {sha256: path for path, sha256 in hashes.items()}
            yield from self._submit(self.request.to_wire(), blobs)
        status = yield from self._collect()
        if status.state == "done":
            self._install()
        else:
            self.discard()
        return status

    def discard(self) -> None:
        """Remove what has arrived of a package that will not become whole."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def place_of(self, event: JobEvent) -> Path | None:
        return self.partial / event.name if event.kind == "file" and event.name in PACKAGE_FILES else None

    def arrived(self, event: JobEvent, path: Path) -> None:
        super().arrived(event, path)
        self.arrivals[event.name] = (event.sha256, event.size)

    def _hash(self, paths: Sequence[Path]) -> Conversation[dict[Path, str]]:
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise RequestError(f"{missing} is not there any more; put it back, or choose the footage anew")
        self.hash_size = sum(path.stat().st_size for path in paths)
        hashes = {}
        for path in paths:
            hashes[path] = yield from hash_file(path)
            self.hashed += path.stat().st_size
        return hashes

    def _install(self) -> None:
        if not (self.partial / MANIFEST).exists() and (self.folder / MANIFEST).exists():
            self.discard()  # an earlier try came to here
            return
        scene = Scene.open(self.partial)
        for part, entry in scene.manifest.files.items():
            # What arrived before an interruption was checked then.
            known = self.arrivals.get(FILE_NAMES[part], (entry.sha256, entry.size))
            if known != (entry.sha256, entry.size):
                raise SceneError(f"the {part} that arrived is not the one of its manifest; reconstruct the scene again")
        move_package(self.partial, self.folder)


def _files_from_wire(values: object) -> tuple[SourceFile, ...]:
    if not isinstance(values, (list, tuple)):
        raise RequestError("files must be a list")
    if len(values) > MAX_FRAMES:
        raise RequestError(f"a scene may have {MAX_FRAMES} files, not {len(values)}")
    return tuple(_construct(SourceFile, value) for value in values)


def _construct(kind: type, values: object) -> Any:
    if not isinstance(values, Mapping):
        raise RequestError(f"{kind.__name__} must be a map of fields, not {type(values).__name__}")
    try:
        return kind(**values)
    except TypeError as error:
        raise RequestError(f"{kind.__name__} has a field too many, too few, or of the wrong type: {error}") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise RequestError(f"{name} must be a number above 0, not {value!r:.80}")
