"""Builds requests from shots in Blender, and keeps them in the folders of their takes."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import msgpack

from ex4d_core.cameras import CameraError
from ex4d_core.durable_files import put_in_place, sync_folder
from ex4d_core.errors import RequestError
from ex4d_core.message_base import MAX_HEADER_BYTES
from ex4d_core.passes import PassesRequest
from ex4d_core.plain_text import plain_line
from ex4d_core.reconstruction import request_from_wire
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import EngineName, PreviewSettings, ShotRequest
from ex4d_core.wan_settings import WanSettings

from ..blender_types import current_context
from ..cameras.cuts import Cut, sample_cuts
from ..cameras.optics import require_rendered_frame
from ..cameras.stereo import sample_stereo
from ..connection.preferences import chosen_licence
from ..projects.folders import work_folder
from ..scenes.link import is_scene_object, open_scene
from ..shots.memory import remember_on_wire
from ..shots.occlusion import AUTOMATIC, occlusion_of
from ..shots.properties import active_shot

REQUEST_FILE = "request.msgpack"

_STEM_LETTERS = 50
# Of what a take was computed in, which a line of the panel shows.
_ARITHMETIC_LETTERS = 100


def build_request(
    scene_object: bpy.types.Object,
    camera: bpy.types.Object,
    frame_start: int,
    frame_end: int,
    *,
    source_frames: tuple[int, ...] | None = None,
    preview: PreviewSettings | None = None,
    wan: WanSettings | None = None,
    engine: EngineName = "preview",
    label: str = "",
    occlusion: str = AUTOMATIC,
    memory: str = AUTOMATIC,
    samples: int = 1,
    cuts: Sequence[Cut] = (),
) -> tuple[Scene, ShotRequest]:
    """The opened scene package, and the request to shoot it with a Blender camera, or with its two eyes.

    Args:
        frame_start, frame_end: Blender frames, both included.
        occlusion, memory, samples: as the shot has them.
        cuts: the cameras of these frames, if ``camera`` does not shoot them all.
        source_frames: footage frame of each, from 0; None where time runs as it was filmed.

    Raises:
        SceneError: the package is missing or changed.
        CameraError: the camera cannot be used, or leaves the footage's frames; or a region of its image is rendered.
        RequestError: the result would be too large or too long, or the scene does not have that occlusion model.
    """
    require_rendered_frame(current_context().scene.render)
    scene = open_scene(scene_object)
    first, last = scene_object.ex4d_scene.frame_start, scene_object.ex4d_scene.frame_start + scene.manifest.frames - 1
    if source_frames is None and (frame_start < first or frame_end > last):
        raise CameraError(
            f"the shot's frames {frame_start} to {frame_end} leave the footage; stay within frames {first} to {last}"
        )
    cuts = cuts or [Cut(camera, frame_start, frame_end)]
    request = ShotRequest(
        scene=scene.digest,
        camera=sample_cuts(cuts, scene_object),
        stereo=sample_stereo(cuts, scene_object),
        first_frame=frame_start - first if source_frames is None else 0,
        source_frames=source_frames,
        render=render_settings(scene, occlusion, engine, memory, samples),
        engine=engine,
        preview=preview or PreviewSettings(),
        wan=wan or WanSettings(),
        label=label,
    )
    return scene, request


def render_settings(
    package: Scene,
    occlusion: str = AUTOMATIC,
    engine: EngineName = "preview",
    memory: str = AUTOMATIC,
    samples: int = 1,
) -> RenderSettings:
    """How a package is rendered: as it was built, for the purpose that the preferences state.

    Args:
        package: the scene package.
        occlusion, memory: as the shot has them.
        engine: decides what an automatic occlusion model and memory are; coverage and views are previews.
        samples: of each pixel, per axis, in takes; coverage and views have one.

    Raises:
        RequestError: the package does not have that occlusion model.
    """
    convention = package.manifest.convention
    model = occlusion_of(occlusion, engine, convention)
    values = {"convention": convention, "licence": chosen_licence(), "occlusion": model, "samples": samples}
    return RenderSettings.from_wire({**values, "remember": remember_on_wire(memory, engine, convention)})


def shot_range(scene: bpy.types.Scene, scene_object: bpy.types.Object) -> tuple[int, int]:
    """First and last frame of the scene's active shot; see `whole_range` for one without a range of its own."""
    shot = active_shot(scene)
    return (shot.frame_start, shot.frame_end) if shot.use_range else whole_range(scene, scene_object)


def whole_range(scene: bpy.types.Scene, scene_object: bpy.types.Object) -> tuple[int, int]:
    """First and last frame that the scene's frame range and the footage have in common.

    Of a shot that is retimed it is all of the scene's frame range.
    """
    if active_shot(scene).use_source_frame:
        return scene.frame_start, scene.frame_end
    link = scene_object.ex4d_scene
    last = link.frame_start + link.frames - 1
    return max(scene.frame_start, link.frame_start), min(scene.frame_end, last)


def new_take_folder(label: str) -> Path:
    """A fresh folder for a take: //takes/LABEL_N beside a saved .blend, else in the project folder."""
    parent = work_folder() / "takes"
    stem, number = file_stem(label), 1
    while True:
        folder = parent / f"{stem}_{number}"
        try:
            folder.mkdir(parents=True)
            for one in (parent, parent.parent):  # so that a power cut does not lose them
                sync_folder(one)
            return folder
        except FileExistsError:
            number += 1


def file_stem(label: str) -> str:
    """A label as the beginning of a file's name."""
    # File systems allow 255 bytes, and a letter may take four.
    return re.sub(r"[^\w-]+", "_", label)[:_STEM_LETTERS].strip("_") or "take"


def save_request(folder: Path, request: ShotRequest | PassesRequest) -> None:
    """Keep a request beside its take or passes, in case Blender is closed before the backend has it."""
    partial = folder / f"{REQUEST_FILE}.partial"
    partial.write_bytes(msgpack.packb(request.to_wire()) or b"")
    put_in_place(partial, folder / REQUEST_FILE)


def read_request(folder: Path) -> bytes:
    """The bytes of the request in a take's folder.

    Raises:
        OSError: there is no such file, or something else in its place.
    """
    path = folder / REQUEST_FILE
    # A pipe would hold Blender up for ever, and a giant take all memory.
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "the file is missing", str(path))
    with open(path, "rb") as file:
        data = file.read(MAX_HEADER_BYTES + 1)
    if len(data) > MAX_HEADER_BYTES:
        raise OSError(errno.EFBIG, f"the file is larger than {MAX_HEADER_BYTES} bytes", str(path))
    return data


def load_request(folder: Path) -> ShotRequest:
    """Read the request of the take in a folder.

    Raises:
        RequestError: it is missing or damaged.
    """
    path = folder / REQUEST_FILE
    try:
        return ShotRequest.from_wire(msgpack.unpackb(read_request(folder)))
    except (OSError, ValueError, msgpack.UnpackException) as error:
        text = f"cannot read the request of the take, {path}: {error}; restore the file, or send a new take"
        raise RequestError(text) from error


def deep_names(folder: Path) -> frozenset[str]:
    """Names of the files of more than 8 bits that a folder's request makes, of a take or of passes."""
    try:
        request = request_from_wire(msgpack.unpackb(read_request(folder)))
    except (OSError, ValueError, msgpack.UnpackException):
        return frozenset()
    if isinstance(request, PassesRequest):
        return frozenset(request.files)
    return frozenset(request.deep_files) if isinstance(request, ShotRequest) else frozenset()


def arithmetic_used(path: Path) -> str:
    """What a take was computed in, as the backend wrote it into ``request.json``; "" where that is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            made_by = json.loads(file.read(MAX_HEADER_BYTES))["made_by"]
        return plain_line(str(made_by["precision"])[:_ARITHMETIC_LETTERS])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def request_metadata(request: ShotRequest) -> dict[str, Any]:
    """The request as plain values for JSON, without the camera's matrices, which are in the take's camera.npz."""
    values = request.to_wire()
    camera = {name: value for name, value in values["camera"].items() if not isinstance(value, bytes)}
    return json.loads(json.dumps({**values, "camera": camera}))


def package_of(request: ShotRequest) -> Scene:
    """The package that a request is about, from the open file's imported scenes."""
    return open_scene(object_of(request))


def object_of(request: ShotRequest) -> bpy.types.Object:
    """The imported scene that a request is about.

    Raises:
        RequestError: it is not in the file.
    """
    for candidate in bpy.data.objects:
        if is_scene_object(candidate) and candidate.ex4d_scene.digest == request.scene:
            return candidate
    raise RequestError("the imported scene that this take is about is no longer in the file; import it again")
