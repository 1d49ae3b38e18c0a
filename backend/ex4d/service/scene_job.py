"""Runs a reconstruction job in a worker: gives sent files the names that readers expect, and stores the scene package.

Every file of the package becomes a blob under its own hash, so that takes of the scene do not upload it again; the
manifest is announced last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ex4d.machine import MachineSettings
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.pipeline.take import TakeSink
from ex4d.service.blob_store import BlobStore
from ex4d.service.job_store import ClaimLost
from ex4d.service.stored_inputs import StoredInput, verify_inputs
from ex4d_core.errors import Ex4dError
from ex4d_core.reconstruction import ReconstructionRequest, is_video
from ex4d_core.scene_manifest import FILE_NAMES, MANIFEST
from ex4d_core.sources import COLMAP_MODELS, SINGLE_FILE_LAYOUTS, SourceFile


class ReconstructionError(Ex4dError):
    """The files that were sent cannot be reconstructed; the text calls them by their labels."""


def reconstruct_sent(
    request: ReconstructionRequest,
    blobs: BlobStore,
    *,
    device: str,
    machine: MachineSettings,
    sink: TakeSink,
    work_folder: Path,
) -> None:
    """Reconstruct a scene and announce every file of its package.

    Args:
        device: for depth estimators, "cpu" or "cuda:N".
        machine: where their weights lie, and what results of this machine are for.
        work_folder: an existing folder, in the file system of the blobs.

    Raises:
        ReconstructionError: footage, depth or source camera cannot be used.
        DamagedInputError: some of them were damaged here, and must be sent again.
    """
    inputs = (StoredInput(file.sha256, file.size, repr(file.label)) for file in request.files)
    verify_inputs(blobs, inputs, sink.progress)
    sent = _SentFiles(request, blobs, work_folder / "sent")
    try:
        scene = reconstruct(
            sent.lay_out(),
            request.settings,
            work_folder / "scene",
            device=device,
            machine=machine,
            progress=sink.progress,
        )
    except ClaimLost:
        raise
    except Ex4dError as error:
        raise ReconstructionError(sent.with_labels(str(error))) from error
    for part, entry in scene.manifest.files.items():
        sink.file(FILE_NAMES[part], scene.path(part), entry.sha256)
    sink.file(MANIFEST, work_folder / "scene" / MANIFEST)


class _SentFiles:
    """Blobs under names of our own; labels are only compared with known names and never become paths."""

    def __init__(self, request: ReconstructionRequest, blobs: BlobStore, folder: Path) -> None:
        self._blobs = blobs
        self._kinds = {
            "footage": (folder / "footage", request.footage, request.is_video),
            "depth": (folder / "depth", request.depth_files, request.settings.depth.layout in SINGLE_FILE_LAYOUTS),
            "camera": (folder / "camera", request.camera_files, len(request.camera_files) == 1),
            "mask": (folder / "mask", request.mask_files, is_video(request.mask_files)),
        }

    def lay_out(self) -> SourcePaths:
        """Link every file to its name; a kind of a single file is that file, any other its folder."""
        footage, depth, camera, mask = (self._link(kind) for kind in self._kinds)
        assert footage is not None, "a request has footage"
        labels = (files[0].label if files else "" for _, files, _ in self._kinds.values())
        footage_label, _, camera_label, mask_label = labels
        return SourcePaths(footage, depth, camera, mask, footage_label, camera_label, mask_label)

    def with_labels(self, text: str) -> str:
        """An error's text with labels in place of our own paths, which tell the artist nothing."""
        named = [
            (folder / name, file.label)
            for folder, files, _ in self._kinds.values()
            for name, file in zip(_names(files), files, strict=True)
        ]
        for path, label in named:
            text = text.replace(str(path), label)
        for path, label in named:
            text = text.replace(path.name, label)
        for kind, (folder, _, _) in self._kinds.items():
            text = text.replace(str(folder), kind)
        return text

    def _link(self, kind: str) -> Path | None:
        folder, files, alone = self._kinds[kind]
        if not files:
            return None
        folder.mkdir(parents=True)
        names = _names(files)
        for name, file in zip(names, files, strict=True):
            self._blobs.touch(file.sha256)
            _link_or_copy(self._blobs.path(file.sha256), folder / name)
        return folder / names[0] if alone else folder


def _names(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """COLMAP's files are known by their names; others get a number and the suffix, which the request has checked."""
    labels = tuple(file.label for file in files)
    numbered = (f"{number:06d}{file.suffix}" for number, file in enumerate(files, start=1))
    return next((pair for pair in COLMAP_MODELS if pair == labels), tuple(numbered))


def _link_or_copy(blob: Path, name: Path) -> None:
    try:
        os.link(blob, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(blob, name)
