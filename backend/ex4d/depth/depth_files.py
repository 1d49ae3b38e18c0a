"""Reads known depth from files: .npz, .npy, EXR sequences, 16-bit PNG sequences, grey videos.

This depth was rendered, scanned or estimated elsewhere, so no model is needed. `_stored` finds out what the files hold,
`_clip` makes depth along z at the footage's size of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ex4d.depth.arrays import array_frames, array_keys, opened_array, small_array
from ex4d.depth.depth_clip import DepthClip, DepthError, FrameProgress, ignore_frame_progress
from ex4d.depth.depth_video import probed_video, read_grey_levels, require_grey
from ex4d.depth.exr_depth import read_exr_depth
from ex4d.depth.intrinsics import ASSUMED_FOV_NOTE, resolved_intrinsics
from ex4d.depth.mist import mist_to_depth, ray_lengths
from ex4d.depth.resampling import same_shape
from ex4d.depth.source_camera import in_first_frames_world
from ex4d.depth.stored_camera import stored_intrinsics, stored_poses
from ex4d.depth.stored_depth import StoredDepth, Values, resampled
from ex4d.depth.tool_layouts import DEPTHCRAFTER, PLAIN, ToolLayout, is_normalised, layout_of_keys
from ex4d.depth.validity import checked_depth, checked_disparity, depth_along_z
from ex4d.media import FootageInfo, MediaError, is_sequence, read_png, sequence_files
from ex4d_core.cameras import CameraPath
from ex4d_core.depth_mapping import NEAREST_DEPTH, DepthMapping
from ex4d_core.sources import INVALID_DEPTH, VIDEO_SUFFIXES, DepthValues, InvalidDepth, MistPass

_IMAGE_SUFFIXES = (".exr", ".png")
# Names of arrays that hold 1 / depth: disparity, inverse_depth, inv_depth, idepth.
_NEAR_IS_LARGE = re.compile(r"disp|inv(?!alid)|^idepth")
# Whole numbers without a unit: what depth cameras and most exporters mean by them.
_MILLIMETRE = 0.001


class DepthFiles:
    """Reads depth along z from files.

    Args:
        path: an .npz with `depth` (T, H, W), optionally `scale` (a number) and `intrinsics` (3, 3) or (T, 3, 3), or one
            that a tool of `ex4d.depth.tool_layouts` wrote; an .npy (T, H, W); a folder or pattern (depth_%04d.exr,
            depth_####.png, depth_*.exr) of EXR files with a depth channel, or of 16-bit gray PNGs; or a grey video.
        scale: depth in scene units = scale x stored value; replaces the `scale` of an .npz. PNGs need it.
        inverse: the files hold inverse depth (disparity): depth = scale / stored value.
        invalid: what to do with NaN, infinite, zero and negative depths: "error", or "far", which replaces them by
            the farthest valid depth of their frame.
        key: name of the array in an .npz ("depth") or of the channel in an EXR (found by itself when it has a
            usual name).
        mist: the EXRs hold Blender's mist pass, rendered with these settings.
        intrinsics: (3, 3) or (T, 3, 3) in pixels, as known without the files. A mist pass needs them: it is measured
            along rays.
        values: what the files hold; see `ex4d_core.sources.DepthSettings`.

    Raises:
        DepthError: a value out of range, or options that do not go together.
    """

    name = "files"
    licence = "that of the files"

    def __init__(
        self,
        path: str | os.PathLike[str],
        scale: float | None = None,
        inverse: bool = False,
        invalid: InvalidDepth = "error",
        key: str | None = None,
        mist: MistPass | None = None,
        intrinsics: np.ndarray | None = None,
        values: DepthValues = "auto",
    ) -> None:
        if invalid not in INVALID_DEPTH:
            raise DepthError(f"invalid={invalid!r} is not known: expected one of {', '.join(INVALID_DEPTH)}")
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise DepthError(f"invalid scale={scale:g}: expected a finite factor above 0")
        if mist is not None and inverse:
            raise DepthError("a mist pass cannot be inverse depth. Give its falloff instead.")
        if mist is not None and intrinsics is None:
            raise DepthError(
                "a mist pass holds distances along rays, which the lens turns into depth. Give the lens that it was "
                "rendered with (Custom Field of View in Blender; --fov, --focal-mm with --sensor-mm, or --focal-px)."
            )
        self._path = Path(path)
        self._scale = scale
        self._inverse = inverse
        self._invalid: InvalidDepth = invalid
        self._key = key
        self._mist = mist
        self._lens = intrinsics
        self._values: DepthValues = values

    def estimate(self, footage: FootageInfo, progress: FrameProgress = ignore_frame_progress) -> DepthClip:
        """The depth in the files, checked against the footage.

        Number and size of frames are checked at once; values frame by frame while iterating. This is quick, so
        `progress` is not called.

        Raises:
            DepthError: the files cannot be read, or do not fit the footage.
        """
        stored = self._stored(footage)
        if stored.size != (footage.width, footage.height):
            stored = resampled(stored, self._path, footage)
        return self._clip(stored, footage)

    def _stored(self, footage: FootageInfo) -> StoredDepth:
        if is_sequence(self._path):
            return self._stored_images(footage)
        suffix = self._path.suffix.lower()
        if suffix in _IMAGE_SUFFIXES:
            raise DepthError(f"{self._path}: is one image. Name its folder, or a pattern such as depth_%04d.exr.")
        if self._mist is not None:
            raise DepthError(f"{self._path}: a mist pass is read from EXR files. Name their folder or pattern.")
        return self._stored_video(footage) if suffix in VIDEO_SUFFIXES else self._stored_array(footage)

    def _stored_array(self, footage: FootageInfo) -> StoredDepth:
        path, keys = self._path, array_keys(self._path)
        tool = layout_of_keys(keys)
        if self._key is not None and self._key != tool.key:
            tool = replace(PLAIN, key=self._key)
        with opened_array(path, tool.key) as (header, _):
            shape, kind = header.shape, header.dtype
        if len(shape) != 3:
            raise DepthError(
                f"{path}: depth has {len(shape)} dimensions {shape}; it needs three, (frames, height, width)."
            )
        _check_count(path, shape[0], footage)
        size = (shape[2], shape[1])
        _check_size(str(path), size, footage)
        if (
            tool == PLAIN
            and not self._is_stated
            and self._scale is None  # depth has a scale, and disparity none
            and keys == [PLAIN.key]
            and is_normalised(array_frames(path, tool.key))
        ):
            tool = DEPTHCRAFTER
        values = self._values_of(tool)
        scale, notes = self._array_scale(keys, kind, values)
        stored = StoredDepth(size, lambda: array_frames(path, tool.key), values, scale, notes=notes, tool=tool.title)
        if tool.title:
            stored = replace(stored, notes=(*notes, _tool_note(path, tool, values)))
        return self._with_camera(stored, tool, keys, footage)

    @property
    def _is_stated(self) -> bool:
        """Whether the user says what the values are."""
        return self._inverse or self._values != "auto"

    def _values_of(self, tool: ToolLayout) -> Values:
        if self._values != "auto":
            return self._values
        if self._inverse:
            return "depth"
        if _NEAR_IS_LARGE.search(tool.key.lower()):
            raise DepthError(
                f"{self._path}: {tool.key!r} holds disparity by its name, in which near is large. Say which: "
                "--inverse-depth (Inverse Depth in Blender) if it is 1 / depth, --depth-values disparity if its factor "
                "and offset are unknown, or --depth-values depth if it is depth."
            )
        if tool.values == "disparity" and self._scale is not None:
            raise DepthError(
                f"{self._path}: {tool.key!r} alone is disparity of {tool.title}, which a scale of {self._scale:g} does "
                "not apply to: leave it out, or add --depth-values depth if the values are depth (Depth Scale, Values "
                "in Blender)."
            )
        return tool.values

    def _array_scale(self, keys: list[str], kind: np.dtype, values: Values) -> tuple[float, tuple[str, ...]]:
        """The scale of an array, and what is assumed of it, for the artist."""
        if self._scale is not None or values == "disparity":
            return self._scale or 1.0, ()
        if "scale" in keys:
            return _stored_scale(self._path), ()
        if kind.kind not in "iu" or self._inverse:
            return 1.0, ()
        if kind.itemsize == 1:
            raise DepthError(
                f"{self._path}: depth in 8 bits ({kind}) has no unit, and is mostly a picture of depth. Give the scale "
                "(--depth-scale), or --depth-values disparity if near is large."
            )
        note = (
            f"the depth in {self._path.name} is whole numbers ({kind}) without a unit, and is read as millimetres, "
            "0.001 scene units each; give --depth-scale (Depth Scale in Blender) if they are something else"
        )
        return _MILLIMETRE, (note,)

    def _with_camera(self, stored: StoredDepth, tool: ToolLayout, keys: list[str], footage: FootageInfo) -> StoredDepth:
        """With the intrinsics, unless the lens is known already, and the poses of an .npz."""
        path, notes = self._path, stored.notes
        intrinsics = self._lens
        if tool.intrinsics in keys and self._lens is None:
            intrinsics, note = stored_intrinsics(
                path, tool.intrinsics, footage.frames, stored.size, (footage.width, footage.height)
            )
            stored, notes = replace(stored, intrinsics=intrinsics), (*notes, *((note,) if note else ()))
        if tool.poses and intrinsics is not None and stored.values == "depth" and not self._inverse:
            poses = stored_poses(path, tool.poses, tool.direction, footage.frames)
            stored = replace(stored, world_to_camera=poses)
        return replace(stored, notes=notes)

    def _stored_images(self, footage: FootageInfo) -> StoredDepth:
        try:
            files = sequence_files(self._path, _IMAGE_SUFFIXES, what="depth images")
        except MediaError as error:
            raise DepthError(str(error)) from error
        is_png = files[0].suffix.lower() == ".png"
        values: Values = "depth" if self._values == "auto" else self._values
        if is_png and self._mist is not None:
            raise DepthError(f"{self._path}: a mist pass is read from EXR files, and these are PNGs. Render EXRs.")
        if is_png and self._scale is None and values != "disparity":
            raise DepthError(
                f"{self._path}: 16-bit PNGs hold whole numbers without a unit. Give --depth-scale (Depth Scale in "
                "Blender), such as 0.001 where 1000 means one scene unit."
            )
        _check_count(self._path, len(files), footage)
        first, note = self._image(files[0], values, footage)
        size = (first.shape[1], first.shape[0])
        _check_size(str(files[0]), size, footage)

        def read() -> Iterator[np.ndarray]:
            for file in files:
                stored, _ = self._image(file, values, footage)
                if stored.shape != first.shape:
                    raise DepthError(
                        f"{file}: depth is {stored.shape[1]}x{stored.shape[0]}, but {size[0]}x{size[1]} in "
                        f"{files[0].name}, and the footage {footage.path.name} is {footage.width}x{footage.height}. "
                        "Export all at the footage's size."
                    )
                yield stored

        return StoredDepth(size, read, values, self._scale or 1.0, notes=(note,) if note else ())

    def _image(self, file: Path, values: Values, footage: FootageInfo) -> tuple[np.ndarray, str]:
        """A frame (h, w) as it is stored, and a sentence for the artist or ""."""
        try:
            if file.suffix.lower() == ".exr":
                near_is_large = self._inverse or values == "disparity"
                how = {"mist": self._mist is not None, "near_is_large": near_is_large}
                return read_exr_depth(file, self._key, (footage.width, footage.height), **how)
            image = read_png(file)
        except MediaError as error:
            raise DepthError(str(error)) from error
        if image.dtype != np.uint16:
            kind = "colour" if image.ndim == 3 else "8 bits"
            raise DepthError(f"{file}: is a PNG of {kind}, too coarse for depth. Export 16-bit gray PNGs or EXRs.")
        return image, ""

    def _stored_video(self, footage: FootageInfo) -> StoredDepth:
        try:
            video, what = probed_video(self._path)
        except MediaError as error:
            raise DepthError(str(error)) from error
        if not self._is_stated or (self._values != "disparity" and self._scale is None):
            raise DepthError(
                f"{self._path}: is {what}, and no file says what its greys mean. Say so: --depth-values disparity if "
                "white is near (as tools show depth), --depth-values depth --depth-scale FAR if white is FAR scene "
                "units away, or --inverse-depth --depth-scale NEAR if white is NEAR and grey is 1 / depth."
            )
        _check_count(self._path, video.frames, footage)
        _check_size(str(self._path), (video.width, video.height), footage)
        require_grey(video)
        values: Values = "depth" if self._values == "auto" else self._values
        note = f"the depth is {what}; an .npz or EXRs would have finer steps and clean edges"
        size = (video.width, video.height)
        return StoredDepth(size, lambda: read_grey_levels(video), values, self._scale or 1.0, notes=(note,))

    def _clip(self, stored: StoredDepth, footage: FootageInfo) -> DepthClip:
        is_disparity = stored.values == "disparity"
        tool = f", as {stored.tool} writes it" if stored.tool else ""
        clip = DepthClip(
            footage=footage,
            intrinsics=stored.intrinsics,
            scale="relative" if self._inverse or is_disparity else "metric",
            source=f"{self.name} ({self._path.name}{tool})",
            licence=self.licence,
            read=lambda: iter(()),
            notes=stored.notes,
        )
        if is_disparity:
            mapping = DepthMapping(NEAREST_DEPTH)
            note = (
                "disparity has an unknown factor and offset: the nearest point is put at "
                f"{mapping.nearest:.4g} scene units and the farthest at up to {mapping.far_limit:g} times that; "
                "--depth-offset and --far-limit (Depth Offset, Far Limit in Blender) change it"
            )
            read = lambda: self._disparity(stored)  # noqa: E731
            return replace(clip, mapping=mapping, notes=(*clip.notes, note), read=read)
        lens = self._lens_for_rays(clip, footage) if self._mist is not None or stored.values == "distance" else None
        return replace(clip, camera=self._camera(stored, footage), read=lambda: self._depth(stored, lens))

    def _lens_for_rays(self, clip: DepthClip, footage: FootageInfo) -> np.ndarray:
        """Intrinsics (T, 3, 3) that turn distance along rays into depth."""
        lens = self._lens
        if lens is None:
            found = resolved_intrinsics(None, footage, clip)
            if found.origin == ASSUMED_FOV_NOTE:
                raise DepthError(
                    f"{self._path}: distances along rays become depth by the lens, which no file states. Give the one "
                    "that they were made with (Custom Field of View in Blender; --fov, --focal-mm or --focal-px)."
                )
            lens = found.matrix
        return np.broadcast_to(lens, (footage.frames, 3, 3))

    def _camera(self, stored: StoredDepth, footage: FootageInfo) -> CameraPath | None:
        intrinsics = stored.intrinsics
        if intrinsics is None and self._lens is not None:
            # One that is known without the files may be of fewer frames than they hold.
            intrinsics = np.asarray(self._lens).reshape(-1, 3, 3)[0]
        if stored.world_to_camera is None or intrinsics is None:
            return None
        path = CameraPath(stored.world_to_camera, intrinsics, footage.width, footage.height)
        return in_first_frames_world(path, stored.scale)

    def _depth(self, stored: StoredDepth, lens: np.ndarray | None) -> Iterator[np.ndarray]:
        for index, frame in enumerate(stored.read()):
            what = f"{self._path}: frame {index}"
            if self._mist is not None and lens is not None:
                depth = np.float32(stored.scale) * mist_to_depth(frame, self._mist, lens[index], what)
            else:
                depth = depth_along_z(frame, stored.scale, self._inverse)
                if lens is not None:
                    depth /= ray_lengths(*depth.shape, lens[index]).astype(np.float32)
            unsaid = not self._is_stated and not stored.tool and self._mist is None
            yield checked_depth(depth, what, self._invalid, may_be_disparity=unsaid)

    def _disparity(self, stored: StoredDepth) -> Iterator[np.ndarray]:
        """Relative disparity of every frame, 1 at the clip's nearest point."""
        lowest, highest = stored.range
        # Some models' disparity is not above 0: its offset is unknown anyway.
        lowest = min(lowest, 0.0)
        for index, frame in enumerate(stored.read()):
            disparity = checked_disparity(frame.astype(np.float32), f"{self._path}: frame {index}", self._invalid)
            if highest > lowest:
                yield (disparity - np.float32(lowest)) / np.float32(highest - lowest)
            else:
                yield np.ones_like(disparity)


def _tool_note(path: Path, tool: ToolLayout, values: Values) -> str:
    holds = "disparity, in which near is large" if values == "disparity" else f"{values} along z"
    if values == "distance":
        holds = "distance along rays"
    return f"{path.name} is read as {tool.title} writes it: {holds}" + (f"; {tool.note}" if tool.note else "")


def _check_count(path: Path, count: int, footage: FootageInfo) -> None:
    if count != footage.frames:
        raise DepthError(
            f"{path}: has depth for {count} frames, but the footage {footage.path.name} has {footage.frames}. "
            "Export depth for the same range of frames, or trim the longer one."
        )


def _check_size(what: str, size: tuple[int, int], footage: FootageInfo) -> None:
    if not same_shape(size, (footage.width, footage.height)):
        raise DepthError(
            f"{what}: depth is {size[0]}x{size[1]}, but the footage {footage.path.name} is "
            f"{footage.width}x{footage.height}, of another shape. Export depth of the whole picture, and in its "
            "orientation."
        )


def _stored_scale(path: Path) -> float:
    scale = small_array(path, "scale").astype(np.float64)
    if scale.size != 1 or not np.isfinite(scale).all() or scale.item() <= 0:
        raise DepthError(f"{path}: 'scale' is {scale.tolist()}. Save one finite number above 0.")
    return scale.item()
