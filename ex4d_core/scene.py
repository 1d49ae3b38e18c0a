"""The scene package: one folder with everything that later steps need to know about the footage.

    manifest.json        what is here: sizes, rate, provenance, and every file's size and SHA-256
    color.npy            (T, H, W, 3) uint8 sRGB
    deep_color.npy       (T, H, W, 3) float16 in the manifest's colour space, where more than 8 bits were asked for
    depth.npy            (T, H, W) float32 along z, scene units
    source_camera.npz    the camera that filmed it (a `CameraPath`)
    motion_mask.npy      (T, H, W) bool, where something moves, if the artist gave a mask
    footage.mp4          the footage as a movie, for display in Blender
    mesh_topology.npz    faces (F, 3) int32, uvs (V, 2) float32, cap_faces: the DW-Mesh's fixed topology
    mesh.pc2             DW-Mesh vertex positions of every frame, in the scene's world; `ex4d_core.mesh_cache` writes it
                         when Blender imports the scene, unless it is part of the package

A package is written completely or not at all: `SceneWriter` works in a hidden sibling folder and renames it at the end.
The SHA-256 of manifest.json names the scene on the wire; the first four files are all that a backend needs of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import numpy as np

from ex4d_core.archives import read_npz
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.durable_files import put_in_place, sync
from ex4d_core.safe_files import is_link
from ex4d_core.scene_manifest import (
    FILE_NAMES,
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    FileEntry,
    SceneError,
    SceneManifest,
)

# How names of files end that are being written.
PARTIAL_SUFFIX = ".partial"


class PlacedFootage(Protocol):
    """Footage with depth and the camera that filmed it: an opened `Scene`, or a clip of arrays.

    Attributes:
        manifest: its frames, size, frame rate and subject distance.
    """

    manifest: SceneManifest

    def color(self) -> np.ndarray:
        """(T, H, W, 3) uint8 sRGB."""
        ...

    def deep_color(self) -> np.ndarray:
        """(T, H, W, 3) float16; see `Scene.deep_color`."""
        ...

    def depth(self) -> np.ndarray:
        """(T, H, W) float32 along z, scene units."""
        ...

    def source_camera(self) -> CameraPath:
        """The camera that filmed it, one pose for each frame."""
        ...

    def motion_mask(self) -> np.ndarray | None:
        """(T, H, W) bool, where something moves; None where nobody said so."""
        ...


class Scene:
    """An opened scene package.

    Attributes:
        manifest: the description of the package.
        digest: SHA-256 of the manifest's bytes; the scene's name on the wire.
    """

    def __init__(self, manifest_bytes: bytes, paths: Mapping[str, Path]):
        """Open a package from its parts.

        Args:
            manifest_bytes: as stored.
            paths: part name to file, for the parts at hand; see `Scene.open` for a folder.
        """
        self.manifest_bytes = manifest_bytes
        self.manifest = SceneManifest.from_json(manifest_bytes)
        self.digest = hashlib.sha256(manifest_bytes).hexdigest()
        self._paths = dict(paths)

    @staticmethod
    def open(folder: str | Path) -> Scene:
        """Open a package on disk.

        Raises:
            SceneError: no package there, or one that is incomplete.
        """
        folder = Path(folder)
        try:
            data = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise SceneError(
                f"{folder} is not a scene folder: cannot read its {MANIFEST} ({error.strerror}); "
                "'ex4d reconstruct' makes one"
            ) from error
        try:
            scene = Scene(data, {name: folder / file for name, file in FILE_NAMES.items()})
        except SceneError as error:
            raise SceneError(f"cannot open {folder}: {error}") from error
        for name, entry in scene.manifest.files.items():
            path = scene.path(name)
            size = path.stat().st_size if path.is_file() else None
            if size != entry.size:
                found = "missing" if size is None else f"{size} bytes long"
                raise SceneError(f"{path} is {found}, the manifest says {entry.size} bytes; reconstruct the scene")
        return scene

    def path(self, part: str) -> Path:
        """Where a part is kept.

        Raises:
            SceneError: this scene has no such part.
        """
        if part not in self.manifest.files or part not in self._paths:
            raise SceneError(f"the scene {self.manifest.name!r} has no {part}; it has {sorted(self.manifest.files)}")
        return self._paths[part]

    def paths(self) -> list[Path]:
        """The files of all parts at hand."""
        return [self._paths[part] for part in self.manifest.files if part in self._paths]

    def color(self) -> np.ndarray:
        """(T, H, W, 3) uint8, mapped from disk: only the frames that are touched take memory."""
        manifest = self.manifest
        return self._mapped("color", (manifest.frames, manifest.height, manifest.width, 3), np.uint8)

    def deep_color(self) -> np.ndarray:
        """(T, H, W, 3) float16 in the manifest's colour space, mapped from disk.

        Raises:
            SceneError: the scene has 8 bits.
        """
        manifest = self.manifest
        if not manifest.is_deep:
            raise SceneError(
                f"the scene {manifest.name!r} has colours of 8 bits: reconstruct it with --bit-depth 16 (or auto)"
            )
        return self._mapped("deep_color", (manifest.frames, manifest.height, manifest.width, 3), np.float16)

    def depth(self) -> np.ndarray:
        """(T, H, W) float32 along z, mapped from disk."""
        manifest = self.manifest
        return self._mapped("depth", (manifest.frames, manifest.height, manifest.width), np.float32)

    def source_camera(self) -> CameraPath:
        """The camera that filmed the footage."""
        try:
            camera = CameraPath.load(self.path("source_camera"))
        except CameraError as error:
            raise SceneError(f"cannot read the scene's source camera: {error}; reconstruct the scene") from error
        expected = (self.manifest.frames, self.manifest.width, self.manifest.height)
        if (len(camera), camera.width, camera.height) != expected:
            raise SceneError(f"the source camera of {self.manifest.name!r} does not fit its footage; reconstruct it")
        return camera

    def motion_mask(self) -> np.ndarray | None:
        """(T, H, W) bool, mapped from disk: where something moves, by the artist's mask; None without one."""
        if "motion_mask" not in self.manifest.files:
            return None
        manifest = self.manifest
        return self._mapped("motion_mask", (manifest.frames, manifest.height, manifest.width), np.bool_)

    def topology(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Faces (F, 3) int32, uvs (V, 2) float32, and how many of the last faces are caps."""
        try:
            arrays = read_npz(self.path("topology"))
            return arrays["faces"], arrays["uvs"], int(arrays["cap_faces"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SceneError(f"cannot read the scene's mesh: {error}; reconstruct the scene") from error

    def _mapped(self, part: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        path = self.path(part)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SceneError(f"cannot read the scene's {part}: {error}; reconstruct the scene") from error
        if array.shape != shape or array.dtype != dtype:
            raise SceneError(f"the scene's {part} is {array.shape} {array.dtype}, the manifest says {shape}")
        return array


class HashedFile:
    """A file written front to back whose SHA-256 is ready when it is closed."""

    def __init__(self, path: Path):
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview | np.ndarray) -> None:
        """Append bytes, or an array's values in C order."""
        view = np.ascontiguousarray(data).data.cast("B") if isinstance(data, np.ndarray) else memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self._size += view.nbytes

    def close(self) -> FileEntry:
        """Flush the file to the disk and close it; returns its size and hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileEntry(self._size, self._digest.hexdigest())


class SceneWriter:
    """Writes a scene package into ``folder``, which appears only when everything is in it.

        with SceneWriter(folder) as writer:
            color = writer.array("color", (T, H, W, 3), np.uint8)
            for frame in frames:
                color.write(frame)
            writer.finish(manifest)

    Leaving the block without `finish`, by an error say, leaves nothing behind, and an older package untouched.

    Raises:
        SceneError: on entering, where ``folder`` is something other than a scene package, or cannot be made.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.partial = self.folder.parent / f".{self.folder.name}.{uuid.uuid4().hex[:8]}.partial"
        self._open: dict[str, HashedFile] = {}
        self._known: dict[str, FileEntry] = {}

    def __enter__(self) -> SceneWriter:
        require_replaceable(self.folder)
        try:
            self.partial.mkdir(parents=True)
        except OSError as error:
            raise SceneError(
                f"cannot write a scene to {self.folder}: {error.strerror}; choose another folder"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for file in self._open.values():
            file._file.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def path(self, part: str) -> Path:
        """Where to write a part that other code writes (a movie, say)."""
        return self.partial / FILE_NAMES[part]

    def file(self, part: str) -> HashedFile:
        """Open a part for writing; it is closed and hashed by `finish`."""
        self._open[part] = HashedFile(self.path(part))
        return self._open[part]

    def array(self, part: str, shape: tuple[int, ...], dtype: type) -> HashedFile:
        """Open a .npy part for writing; write frames of it in order, until ``shape`` is filled."""
        file = self.file(part)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file

    def take_over(self, part: str, scene: Scene) -> None:
        """Have the same part as another package: as a second name of its file, or, where that cannot be, as a copy."""
        source, target = scene.path(part), self.path(part)
        try:
            os.link(source, target)
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(source, target)
        self._known[part] = scene.manifest.files[part]

    def finish(self, manifest: SceneManifest) -> Scene:
        """Close every part, write the manifest, and move the package into place.

        Args:
            manifest: with ``files`` empty; the entries are made here.
        """
        entries = {**self._known, **{name: file.close() for name, file in self._open.items()}}
        self._open.clear()
        for name, file_name in FILE_NAMES.items():
            path = self.partial / file_name
            if name not in entries and path.exists():
                entries[name] = FileEntry(path.stat().st_size, sha256_of(path))
        fields = {**manifest.__dict__, "files": entries}
        data = SceneManifest(**fields).to_json()
        SceneManifest.from_json(data)
        (self.partial / MANIFEST).write_bytes(data)
        move_package(self.partial, self.folder)
        return Scene.open(self.folder)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_package(folder: Path) -> bool:
    """Whether a folder holds a scene package, of any version and complete or not, by its manifest."""
    try:
        with open(folder / MANIFEST, "rb") as file:
            document = json.loads(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def require_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a scene package or an empty folder.

    Raises:
        SceneError: there is something else in the folder, or it is a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SceneError(f"{folder} is a file; choose another folder for the scene")
    found = {path.name for path in folder.iterdir()}
    strange = found - {MANIFEST, *FILE_NAMES.values()} if is_package(folder) else found
    # What a Blender leaves that was ended while it wrote the mesh.
    strange = {name for name in strange if not (name.startswith("mesh.pc2.") and name.endswith(PARTIAL_SUFFIX))}
    if strange:
        raise SceneError(f"{folder} holds something else ({min(strange)}); choose another folder, or move it away")


def move_package(new: Path, target: Path) -> None:
    """Move the package in ``new`` to ``target``, where an older package is replaced.

    Raises:
        SceneError: there is something else at ``target``.
    """
    require_replaceable(target)
    if not target.exists():
        put_in_place(new, target)
        return
    sync(new)  # which takes longest, while the older package is still in its place
    old = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.old"
    os.replace(target, old)
    try:
        put_in_place(new, target)
    except OSError:
        if not target.exists():
            os.replace(old, target)
        raise
    if is_link(old):
        old.unlink()  # the package that it led to stays
    else:
        shutil.rmtree(old, ignore_errors=True)
