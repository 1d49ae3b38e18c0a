"""Turns the artist's choice of footage and depth into a plan of files, and checks it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import bpy

from ex4d_core.errors import Ex4dError
from ex4d_core.reconstruction import CameraMotion, ReconstructionPlan, ReconstructionSettings
from ex4d_core.sources import (
    CAMERA_SUFFIXES,
    COLMAP_MODELS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    DepthLayout,
    DepthSettings,
    MistPass,
    colmap_folder,
)

from ..connection.preferences import chosen_licence
from ..paths import from_blend
from ..projects.folders import work_folder
from .properties import EX4D_Footage
from .source_cameras import camera_of_object, distortion_of, footage_extent, solved_camera, write_camera

_ARRAY_SUFFIXES = (".npz", ".npy")
_FILES = ("footage", "depth_files", "camera_files", "mask_files")
_LAYOUTS: dict[str, DepthLayout] = {".exr": "exr", ".png": "png"}
_DEPTH_FIELDS = ("layout", "estimator", "scale", "inverse", "invalid", "licence", "mist")


class FootageError(Ex4dError):
    """Footage, depth or a camera that cannot be sent."""


def plan_of(settings: EX4D_Footage, scene: bpy.types.Scene) -> ReconstructionPlan:
    """What to reconstruct, as chosen in the panel.

    Args:
        settings: of the panel.
        scene: whose frame rate image sequences get.

    Raises:
        FootageError: something is missing, or is not footage or depth.
        CameraError: the solve, or the camera object, cannot be used.
        OSError: its file cannot be written.
    """
    if not settings.footage:
        raise FootageError("choose the footage first: a video, or a folder of images")
    chosen = from_blend(settings.footage)
    footage = picture_files(chosen, "footage")
    fps = None
    if footage[0].suffix.lower() in IMAGE_SUFFIXES:
        fps = (round(scene.render.fps * 1000), round(scene.render.fps_base * 1000))
    layout: DepthLayout = "estimator"
    depth_files: tuple[Path, ...] = ()
    if settings.depth_from == "FILES":
        if not settings.depth:
            raise FootageError("choose the depth files: an .npz or .npy, or a folder of EXR or of 16-bit PNG files")
        layout, depth_files = _depth_files(from_blend(settings.depth))
    distortion = None
    camera_files: tuple[Path, ...] = ()
    if settings.camera_from == "FILE":
        camera_files = _camera_files(from_blend(settings.camera)) if settings.camera else ()
    elif settings.camera_from != "SOLVE":
        camera_files = (_camera_from_blender(settings, footage, _scenes_folder() / "cameras"),)
    if settings.camera_from != "FILE" and settings.undistort and settings.clip is not None:
        distortion = distortion_of(settings.clip)
    mist = _mist(settings, layout)
    plain = layout != "estimator" and mist is None
    values = settings.values if plain else "auto"
    depth = DepthSettings(
        layout,
        estimator=settings.estimator if layout == "estimator" else "",
        scale=settings.scale if settings.use_scale and layout != "estimator" and values != "disparity" else None,
        inverse=settings.inverse and plain and values != "disparity",
        values=values,
        invalid="far" if settings.far else "error",
        licence=chosen_licence(),
        mist=mist,
        # Blender keeps 32 bits of a number; a far limit of 0 is the estimator's own.
        offset=round(settings.offset, 6) if settings.use_offset else None,
        far_limit=max(1.01, round(settings.far_limit, 4)) if settings.far_limit > 0.0 else None,
        camera_fit=settings.camera_fit,
    )
    fills_gaps = settings.camera_gaps and settings.camera_from == "FILE" and bool(camera_files)
    how = ReconstructionSettings(
        name=chosen.stem or "footage",
        depth=depth,
        fps=fps,
        **(lens_fields(settings) if settings.use_fov and settings.camera_from in ("FILE", "SOLVE") else {}),
        camera_scale=settings.camera_scale if camera_files else 1.0,
        camera_motion=_camera_motion(settings, bool(camera_files), layout == "estimator"),
        camera_gaps="interpolate" if fills_gaps else "refuse",
        distortion=distortion,
        **_bit_depth(settings),
    )
    mask_files = picture_files(from_blend(settings.mask), "motion mask") if settings.mask else ()
    return ReconstructionPlan(how, footage, depth_files, camera_files, mask_files)


def lens_fields(settings: Any) -> dict[str, Any]:
    """The fields of `ReconstructionSettings` for a lens: of the panel's settings, or of an operator with the same."""
    if settings.lens_unit == "MILLIMETERS":
        # Blender keeps 32 bits of a number.
        return {"focal_mm": round(settings.focal_mm, 4), "sensor_mm": round(settings.sensor_mm, 4)}
    return {"fov_degrees": math.degrees(settings.fov)}


def _bit_depth(settings: EX4D_Footage) -> dict[str, Any]:
    """The fields of `ReconstructionSettings` for colours of more than 8 bits; none without."""
    if settings.bit_depth == "8":
        return {}
    return {name: getattr(settings, name).strip() for name in ("bit_depth", "input_space", "working_space")}


def _camera_motion(settings: EX4D_Footage, has_file: bool, estimated: bool) -> CameraMotion:
    """What moves the source camera where no file of poses is sent."""
    if settings.camera_from == "SOLVE":
        return "solve"
    return "still" if estimated and not (has_file or settings.use_poses) else "auto"


def new_scene_folder(name: str) -> Path:
    """Where a scene package can be put: //scenes/NAME_N beside a saved .blend, else in the project folder."""
    parent = _scenes_folder()
    parent.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w-]+", "_", name).strip("_") or "scene"
    number = 1
    while any(path.exists() for path in (parent / f"{stem}_{number}", *parent.glob(f".{stem}_{number}.*.partial"))):
        number += 1
    return parent / f"{stem}_{number}"


def _scenes_folder() -> Path:
    return work_folder() / "scenes"


def plan_to_text(plan: ReconstructionPlan) -> str:
    """A plan as a .blend keeps it."""
    files = {name: [str(path) for path in getattr(plan, name)] for name in _FILES}
    return json.dumps({"settings": plan.settings.to_wire(), **files})


def plan_from_text(text: str) -> ReconstructionPlan:
    """The plan that `plan_to_text` kept.

    Raises:
        FootageError: it is damaged, or one of its files is missing.
    """
    try:
        values = json.loads(text)
        files = {name: tuple(map(Path, values.get(name, ()))) for name in _FILES}
        settings = values["settings"] if "settings" in values else _nested(values)
        plan = ReconstructionPlan(ReconstructionSettings.from_wire(settings), **files)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FootageError(f"the plan of this reconstruction is damaged ({error}); start it again") from error
    gone = next((path for path in plan.files if not path.is_file()), None)
    if gone is not None:
        raise FootageError(f"{gone} is missing; put it back, or choose the footage again")
    return plan


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a plan as version 0.1 kept it, with all values beside each other."""
    depth = {name: values[name] for name in _DEPTH_FIELDS if name in values}
    rest = {name: value for name, value in values.items() if name not in (*_DEPTH_FIELDS, *_FILES)}
    return {**rest, "depth": depth}


def picture_files(chosen: Path, what: str) -> tuple[Path, ...]:
    """A video, or the images of a folder in their order.

    Args:
        what: it is, for messages: "footage", "motion mask".

    Raises:
        FootageError: it is neither.
    """
    if chosen.is_dir():
        return _sequence(chosen, IMAGE_SUFFIXES, "images")[1]
    if not chosen.is_file():
        raise FootageError(f"{chosen} does not exist; choose the {what} again")
    if chosen.suffix.lower() in IMAGE_SUFFIXES:
        raise FootageError(f"{chosen.name} is one image; choose a video, or the folder with all images")
    if chosen.suffix.lower() not in VIDEO_SUFFIXES:
        raise FootageError(f"{chosen.name} is not a known video; choose one of {', '.join(VIDEO_SUFFIXES)}")
    return (chosen,)


def _depth_files(chosen: Path) -> tuple[DepthLayout, tuple[Path, ...]]:
    if chosen.is_file() and chosen.suffix.lower() in _ARRAY_SUFFIXES:
        return "array", (chosen,)
    if chosen.is_file() and chosen.suffix.lower() in VIDEO_SUFFIXES:
        return "video", (chosen,)
    if chosen.is_file() and chosen.suffix.lower() in _LAYOUTS:
        chosen = chosen.parent  # one image stands for the whole sequence
    if not chosen.is_dir():
        problem = "does not exist" if not chosen.exists() else "is not depth"
        raise FootageError(f"{chosen} {problem}; choose an .npz or .npy, or a folder of EXR or of 16-bit PNG files")
    suffix, files = _sequence(chosen, tuple(_LAYOUTS), "EXR or PNG files")
    return _LAYOUTS[suffix], files


def _mist(settings: EX4D_Footage, layout: str) -> MistPass | None:
    """What the world's mist was, if the depth files are a mist pass."""
    if layout == "estimator" or not settings.use_mist:
        return None
    if layout != "exr":
        raise FootageError("a mist pass is a folder of EXR files; choose that as depth, or switch Mist Pass off")
    without_file = settings.camera_from == "SOLVE" or (settings.camera_from == "FILE" and not settings.camera)
    if not settings.use_fov and without_file:
        raise FootageError(
            "a mist pass needs the lens it was rendered with; set Custom Lens, or choose the camera's file"
        )
    return MistPass(settings.mist_start, settings.mist_depth, settings.mist_falloff)


def require_camera_files(chosen: Path) -> None:
    """Check that a file, or a folder, is the camera of footage.

    Raises:
        FootageError: it is something else.
    """
    _camera_files(chosen)


def _camera_files(chosen: Path) -> tuple[Path, ...]:
    """One camera file, or those of a COLMAP model, of which each stands for all, or their folder."""
    if chosen.is_file() and chosen.suffix.lower() in CAMERA_SUFFIXES:
        return (chosen,)
    if chosen.is_dir() and (chosen / "transforms.json").is_file():
        return (chosen / "transforms.json",)
    folder = colmap_folder(chosen) if chosen.is_dir() else chosen.parent
    for names in COLMAP_MODELS:
        files = tuple(folder / name for name in names)
        if (chosen.is_dir() or chosen in files) and all(file.is_file() for file in files):
            return files
    problem = "is not a camera file" if chosen.exists() else "does not exist"
    raise FootageError(
        f"{chosen} {problem}; choose an .npz, a transforms.json, or COLMAP's cameras and images (.bin or .txt)"
    )


def _camera_from_blender(settings: EX4D_Footage, footage: tuple[Path, ...], folder: Path) -> Path:
    """The file of a solved clip's camera, or of a camera object's."""
    first, images = footage[0], len(footage)
    if settings.camera_from == "CLIP":
        if settings.clip is None:
            raise FootageError("choose the movie clip whose solved camera filmed the footage")
        path = solved_camera(settings.clip)
    else:
        if settings.camera_object is None:
            raise FootageError("choose the camera object that filmed the footage")
        frames, size = footage_extent(first)
        path = camera_of_object(settings.camera_object, settings.camera_start, images if images > 1 else frames, size)
    return write_camera(path, folder, re.sub(r"[^\w-]+", "_", first.stem).strip("_") or "footage")


def _sequence(folder: Path, suffixes: tuple[str, ...], what: str) -> tuple[str, tuple[Path, ...]]:
    """The suffix and the files of a folder's images, in the order of their numbers."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    kinds = sorted({path.suffix.lower() for path in found})
    if len(kinds) != 1:
        problem = f"has {' and '.join(kinds)} files" if kinds else f"has no {what}"
        raise FootageError(f"{folder} {problem}; choose a folder that holds the {what} of one sequence and no others")
    return kinds[0], tuple(sorted(found, key=_natural))


def _natural(path: Path) -> list[tuple[int, str]]:
    """frame_2 before frame_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
