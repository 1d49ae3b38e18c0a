"""The mask of what moves, of a scene that is imported already: read by Blender, and kept in a new scene package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from bpy.app.translations import pgettext_rpt as report_
from bpy_extras.io_utils import ImportHelper

from ex4d_core.motion_masks import WHITE, empty_notes, nearest_resized, resize_notes
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.scene_remap import remap_scene
from ex4d_core.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

from ..blender_types import Context, Operator, ops
from ..errors import reports_errors
from ..scenes.link import NeedsScene, chosen_scene_object, open_scene
from ..sequencer.strip_api import content_length_of, strips_in
from .depth_offset import show_instead
from .sources import FootageError, new_scene_folder, picture_files


class EX4D_OT_set_motion_mask(NeedsScene, ImportHelper, Operator):
    """Make a new scene with a mask of what moves: a video, or any image of a sequence; this one is hidden and stays."""

    bl_idname = "ex4d.set_motion_mask"
    bl_label = "Set Motion Mask"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(
        default=";".join(f"*{suffix}" for suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)), options={"HIDDEN"}
    )

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        path = Path(bpy.path.abspath(self.filepath))
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            path = path.parent  # one image stands for the whole sequence
        for text in apply_mask(context, chosen_scene_object(context), path):
            self.report({"WARNING"}, report_(text))
        return {"FINISHED"}


def apply_mask(context: Context, scene_object: bpy.types.Object, path: Path) -> list[str]:
    """Import a new scene package with a mask of what moves; the old scene is hidden and stays.

    Args:
        path: of a video, or a folder of images.

    Returns:
        Sentences for the artist about the mask.

    Raises:
        FootageError: the mask cannot be read.
        RequestError: it does not fit the footage.
        SceneError: the package is missing, has changed, or the new one cannot be written.
        OSError: a folder cannot be created.
    """
    package = open_scene(scene_object)
    manifest, notes, shares = package.manifest, [], []
    windows = bpy.context.window_manager
    windows.progress_begin(0, manifest.frames)

    def counted(masks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for mask in masks:
            shares.append(float(mask.mean()))
            windows.progress_update(len(shares))
            yield mask

    try:
        with tempfile.TemporaryDirectory() as work:
            images = picture_files(path, "motion mask")
            if images[0].suffix.lower() in VIDEO_SUFFIXES:
                images = _rendered(images[0], manifest, Path(work))
            notes += _checked(path, images, manifest)
            folder = new_scene_folder(manifest.name)
            masks = counted(_white(image, manifest) for image in images)
            remap_scene(package, folder, None, mask=masks, mask_label=path.name)
    finally:
        windows.progress_end()
    show_instead(context, scene_object, folder)
    return [*notes, *empty_notes(min(shares), max(shares))]


def _checked(path: Path, images: tuple[Path, ...], manifest: SceneManifest) -> list[str]:
    """Sentences about images that are a mask of a scene; raises RequestError where they do not fit it."""
    height, width = _pixels(images[0]).shape
    footage = manifest.frames, manifest.width, manifest.height
    return list(resize_notes(path.name, (len(images), width, height), manifest.name, footage))


def _white(image: Path, manifest: SceneManifest) -> np.ndarray:
    """(H, W) bool, where an image is white, at the footage's size."""
    return nearest_resized(_pixels(image) >= (WHITE - 0.5) / 255, manifest.width, manifest.height)


def _pixels(path: Path) -> np.ndarray:
    """(h, w) float32 brightness of an image file, 0 to 1, over black."""
    try:
        image = bpy.data.images.load(str(path))
    except RuntimeError as error:
        raise FootageError(f"{path} cannot be read: {error}") from error
    try:
        image.colorspace_settings.name = "Non-Color"
        width, height = image.size
        if not width or not height:
            raise FootageError(f"{path} is not a readable image; export it again")
        values = np.empty(width * height * image.channels, dtype=np.float32)
        image.pixels.foreach_get(values)
        values = values.reshape(height, width, -1)[::-1]
        brightness = values[..., :3].mean(axis=2)
        return brightness * values[..., 3] if values.shape[2] == 4 else brightness
    finally:
        bpy.data.images.remove(image)


def _rendered(movie: Path, manifest: SceneManifest, folder: Path) -> tuple[Path, ...]:
    """The frames of a movie as images, which Blender's sequencer renders: it has no other way to read their pixels."""
    scene = bpy.data.scenes.new("EX-4D Mask")
    try:
        strips = strips_in(scene.sequence_editor_create())
        try:
            strip = strips.new_movie(name="mask", filepath=str(movie), channel=1, frame_start=1)
        except RuntimeError as error:
            raise FootageError(f"{movie} cannot be read: {error}") from error
        frames, element = content_length_of(strip), strip.elements[0]
        size = element.orig_width, element.orig_height
        list(
            resize_notes(movie.name, (frames, *size), manifest.name, (manifest.frames, manifest.width, manifest.height))
        )
        _set_output(scene, size, frames, folder)
        # A movie of another frame rate is played at its speed: the scene takes the movie's.
        scene.render.fps, scene.render.fps_base = max(1, round(element.orig_fps * 1000)), 1000.0
        strips.remove(strip)
        strips.new_movie(name="mask", filepath=str(movie), channel=1, frame_start=1)
        ops.render.render(animation=True, scene=scene.name)
    finally:
        bpy.data.scenes.remove(scene)
    return tuple(sorted(folder.glob("*.png")))


def _set_output(scene: bpy.types.Scene, size: tuple[int, int], frames: int, folder: Path) -> None:
    """Let a scene render its sequencer to gray PNG files, with the colours as they are in the movie."""
    render = scene.render
    render.use_sequencer, render.use_compositing = True, False
    render.resolution_x, render.resolution_y, render.resolution_percentage = *size, 100
    render.filepath, render.use_file_extension = str(folder / "mask_"), True
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "BW"
    render.dither_intensity = 0.0
    scene.view_settings.view_transform = "Standard"
    scene.frame_start, scene.frame_end = 1, frames


CLASSES = (EX4D_OT_set_motion_mask,)
