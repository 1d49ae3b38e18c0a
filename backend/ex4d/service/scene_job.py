"""A reconstruction job in a worker: the files that a client sent, laid out by names of our own, to a scene package.

Every file of the package becomes a blob under its own hash, so that takes of the scene upload nothing of it again; the
manifest is announced last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ex4d.depth import (
    CameraFileError,
    DepthClip,
    DepthError,
    DepthFiles,
    EstimatorSettings,
    IntrinsicsError,
    KnownLens,
    MistSettings,
    create_estimator,
    focal_in_widths,
    intrinsics_from,
    known_lens,
    lens_for,
    read_source_camera,
)
from ex4d.media import FootageInfo, MediaError, probe
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.take import TakeSink
from ex4d.service.blob_store import BlobStore
from ex4d_core.cameras import CameraError
from ex4d_core.errors import Ex4dError
from ex4d_core.reconstruction import ReconstructionRequest
from ex4d_core.scene import FILE_NAMES, MANIFEST
from ex4d_core.sources import COLMAP_MODELS, DepthRequest, SourceFile

ESTIMATE_STAGE, STAGE = "depth", "reconstruct"


class ReconstructionError(Ex4dError, ValueError):
    """The files that were sent do not make a scene; the text speaks of them by their labels."""


def make_scene(
    request: ReconstructionRequest, blobs: BlobStore, *, device: str, sink: TakeSink, work_folder: Path
) -> None:
    """Reconstruct and announce every file of the package.

    Args:
        device: for depth estimators, "cpu" or "cuda:N".
        work_folder: an existing folder, in the file system of the blobs.

    Raises:
        ReconstructionError: footage, depth or source camera cannot be used.
    """
    inputs = work_folder / "sent"
    try:
        footage_path = _lay_out(request.footage, blobs, inputs / "footage", alone=request.is_video)
        footage = probe(footage_path, fps=Fraction(*request.fps) if request.fps else None)
        source_camera = filmed_by = stated = None
        if request.camera:
            camera_file = _lay_out_camera(request.camera, blobs, inputs / "camera")
            source_camera = read_source_camera(camera_file, footage, request.camera_scale)
            filmed_by = source_camera.intrinsics, f"the camera file {request.camera[0].label}"
        if request.fov_degrees is not None:
            stated = intrinsics_from(footage.width, footage.height, fov_degrees=request.fov_degrees)
        lens = known_lens(
            footage,
            stated=stated,
            filmed_by=filmed_by,
            convention=request.convention,
            depth_files=request.depth.layout != "estimator" and request.depth.mist is None,
        )
        if request.depth.layout == "estimator":
            depth = _estimated(request.depth, footage, device, lens, sink)
        else:
            depth = _from_files(request.depth, blobs, inputs / "depth", footage, lens)
        intrinsics, origin = lens_for(lens, footage, depth)
        scene = reconstruct(
            footage,
            depth,
            intrinsics,
            work_folder / "scene",
            name=request.name,
            convention=request.convention,
            source_camera=source_camera,
            provenance={"footage": request.footage[0].label, "focal length": origin},
            progress=lambda done, total: sink.progress(STAGE, done, total),
        )
    except (MediaError, DepthError, IntrinsicsError, CameraFileError, CameraError) as error:
        # Our own paths tell the artist nothing; the labels do.
        text = str(error)
        for place, label in _places(request, inputs).items():
            text = text.replace(place, label)
        raise ReconstructionError(text) from error
    for part, entry in scene.manifest.files.items():
        sink.file(FILE_NAMES[part], scene.path(part), entry.sha256)
    sink.file(MANIFEST, work_folder / "scene" / MANIFEST)


def _estimated(
    request: DepthRequest, footage: FootageInfo, device: str, lens: KnownLens | None, sink: TakeSink
) -> DepthClip:
    settings = EstimatorSettings(
        name=request.estimator,
        licence=request.licence,
        device=device,
        focal_in_widths=focal_in_widths(lens, footage),
    )
    return create_estimator(settings).estimate(footage, lambda done, total: sink.progress(ESTIMATE_STAGE, done, total))


def _from_files(
    request: DepthRequest, blobs: BlobStore, folder: Path, footage: FootageInfo, lens: KnownLens | None
) -> DepthClip:
    path = _lay_out(request.files, blobs, folder, alone=request.layout == "array")
    mist = request.mist
    if mist is not None and lens is None:
        raise ReconstructionError(
            "a mist pass holds distances along rays, which the lens turns into depth; set the field of view that it "
            "was rendered with, or choose the camera's file"
        )
    files = DepthFiles(
        path,
        scale=request.scale,
        inverse=request.inverse,
        invalid=request.invalid,
        mist=None if mist is None else MistSettings(mist.start, mist.depth, mist.falloff),
        lens=None if lens is None else lens[0],
    )
    return files.estimate(footage)


def _lay_out(files: Sequence[SourceFile], blobs: BlobStore, folder: Path, *, alone: bool) -> Path:
    """Give blobs the names that readers expect; returns the file, or the folder of several."""
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        blobs.touch(file.sha256)
        # `SourceFile` promises a name that is a hash, and the request a suffix out of a list of ours.
        _same_file(blobs.path(file.sha256), folder / _own_name(number, file))
    return folder / _own_name(0, files[0]) if alone else folder


def _lay_out_camera(files: Sequence[SourceFile], blobs: BlobStore, folder: Path) -> Path:
    """Returns one camera file, or the folder of COLMAP's two, which are known by their names."""
    names = _camera_names(files)
    folder.mkdir(parents=True)
    for file, name in zip(files, names, strict=True):
        blobs.touch(file.sha256)
        _same_file(blobs.path(file.sha256), folder / name)
    return folder / names[0] if len(files) == 1 else folder


def _camera_names(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """Names of our own: the labels are only compared with COLMAP's."""
    labels = tuple(file.label for file in files)
    return next((pair for pair in COLMAP_MODELS if pair == labels), tuple(map(_own_name, range(len(files)), files)))


def _own_name(number: int, file: SourceFile) -> str:
    return f"{number + 1:06d}{file.suffix}"


def _same_file(blob: Path, name: Path) -> None:
    try:
        os.link(blob, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(blob, name)


def _places(request: ReconstructionRequest, inputs: Path) -> dict[str, str]:
    """What to call our own paths, longer ones first."""
    named = zip(_camera_names(request.camera), request.camera, strict=True)
    places = {str(inputs / "camera" / name): file.label for name, file in named}
    for name, files in (("footage", request.footage), ("depth", request.depth.files)):
        for number, file in enumerate(files):
            places[str(inputs / name / _own_name(number, file))] = file.label
        for number, file in enumerate(files):
            places[_own_name(number, file)] = file.label
        places[str(inputs / name)] = name
    return places
