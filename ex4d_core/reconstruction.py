"""Footage to a scene package, made by the backend: the request for it, and its conversation from this side of the wire.

Files are blobs on the wire; their names travel along as labels for people and never become paths over there. Footage
and depth are sent once: the scene's own colour and depth are the backend's already when a take is made of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ex4d_core.client import Conversation
from ex4d_core.jobs import JobConversation
from ex4d_core.messages import JobEvent, JobStatus
from ex4d_core.scene import FILE_NAMES, MANIFEST, Scene, SceneError, move_package
from ex4d_core.shot import CONVENTIONS, MAX_FRAMES, MAX_LABEL, RequestError, ShotRequest
from ex4d_core.sources import (
    CAMERA_SUFFIXES,
    COLMAP_MODELS,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    DepthRequest,
    MistPass,
    SourceFile,
    construct,
    files_from_wire,
    files_to_wire,
    is_whole,
    name_for_people,
    require_positive,
)
from ex4d_core.transfers import hash_file

KIND = "reconstruction"
# What a reconstruction announces; a name from the wire is only ever compared with these.
PACKAGE_FILES = (*FILE_NAMES.values(), MANIFEST)


@dataclass(frozen=True)
class ReconstructionRequest:
    """A scene to make of footage.

    Attributes:
        footage: one video, or pictures in their order.
        depth: where depth comes from.
        name: of the scene, for people.
        fps: rate of pictures; a video has its own.
        fov_degrees: the lens's horizontal field of view; None takes what the camera's file, the depth files or the
            footage say, or a guess.
        convention: how the DW-Mesh for display is built; "reference" also takes EX-4D's lens where `fov_degrees` and
            a camera's file say nothing.
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
            if len(fps) != 2 or any(not is_whole(one) or not 0 < one < 2**31 for one in fps):
                raise RequestError(f"fps must be two whole numbers above 0, not {self.fps!r:.80}")
            object.__setattr__(self, "fps", fps)
        require_positive("fov_degrees", self.fov_degrees)
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
        require_positive("camera_scale", self.camera_scale)

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
        """Plain values for msgpack."""
        depth = {**_plain(self.depth), "files": files_to_wire(self.depth.files)}
        if self.depth.mist is not None:
            depth["mist"] = _plain(self.depth.mist)
        files = {"footage": files_to_wire(self.footage), "camera": files_to_wire(self.camera)}
        return {"kind": KIND, **_plain(self), **files, "depth": depth}

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
        mist = None if depth.get("mist") is None else construct(MistPass, depth["mist"])
        files = files_from_wire(depth.get("files"))
        known["footage"] = files_from_wire(known.get("footage"))
        known["camera"] = files_from_wire(known.get("camera"))
        known["depth"] = construct(DepthRequest, {**depth, "files": files, "mist": mist})
        return construct(ReconstructionRequest, known)


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
    convention: str = "centered"
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
            return tuple(
                SourceFile(hashes[path], path.stat().st_size, name_for_people(path.name)[-MAX_LABEL:]) for path in paths
            )

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
            name_for_people(self.name),
            self.fps,
            self.fov_degrees,
            self.convention,
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


def _plain(record: ReconstructionRequest | DepthRequest | MistPass) -> dict[str, Any]:
    return {entry.name: getattr(record, entry.name) for entry in fields(record)}
