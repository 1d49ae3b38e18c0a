"""Reads known depth from files: .npz, .npy, EXR sequences, 16-bit PNG sequences.

This depth was rendered, scanned or estimated elsewhere, so no model is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ex4d.depth.arrays import array_frames, array_keys, opened_array, small_array
from ex4d.depth.depth_clip import DepthClip, DepthError, FrameProgress, ignore_frame_progress
from ex4d.depth.mist import mist_to_depth
from ex4d.depth.validity import checked_depth, depth_along_z
from ex4d.media import FootageInfo, MediaError, is_sequence, read_exr_channels, read_png, sequence_files
from ex4d_core.sources import INVALID_DEPTH, InvalidDepth, MistPass

_DEFAULT_KEY = "depth"
_IMAGE_SUFFIXES = (".exr", ".png")


class DepthFiles:
    """Reads depth along z from files.

    Args:
        path: an .npz with `depth` (T, H, W), optionally `scale` (a number) and `intrinsics` (3, 3) or (T, 3, 3); an
            .npy (T, H, W); or a folder or pattern (depth_%04d.exr, depth_####.png, depth_*.exr) of EXR files with a
            depth channel, or of 16-bit gray PNGs.
        scale: depth in scene units = scale x stored value; replaces the `scale` of an .npz. PNGs need it.
        inverse: the files hold inverse depth (disparity): depth = scale / stored value.
        invalid: what to do with NaN, infinite, zero and negative depths: "error", or "far", which replaces them by
            the farthest valid depth of their frame.
        key: name of the array in an .npz ("depth") or of the channel in an EXR (found by itself when it has a
            usual name).
        mist: the EXRs hold Blender's mist pass, rendered with these settings.
        intrinsics: (3, 3) or (T, 3, 3) in pixels, which a mist pass needs: it is measured along rays.

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
        self._mist = None if mist is None or intrinsics is None else (mist, intrinsics)

    def estimate(self, footage: FootageInfo, progress: FrameProgress = ignore_frame_progress) -> DepthClip:
        """The depth in the files, checked against the footage.

        Number and size of frames are checked at once; values frame by frame while iterating. This is quick, so
        `progress` is not called.

        Raises:
            DepthError: the files cannot be read, or do not fit the footage.
        """
        if is_sequence(self._path):
            return self._from_images(footage)
        if self._path.suffix.lower() in _IMAGE_SUFFIXES:
            raise DepthError(f"{self._path}: is one image. Name its folder, or a pattern such as depth_%04d.exr.")
        if self._mist is not None:
            raise DepthError(f"{self._path}: a mist pass is read from EXR files. Name their folder or pattern.")
        return self._from_array(footage)

    def _from_array(self, footage: FootageInfo) -> DepthClip:
        path, key = self._path, self._key or _DEFAULT_KEY
        with opened_array(path, key) as (header, _):
            shape = header.shape
        if len(shape) != 3:
            raise DepthError(
                f"{path}: depth has {len(shape)} dimensions {shape}; it needs three, (frames, height, width)."
            )
        _check_count(path, shape[0], footage)
        _check_size(str(path), shape[1:], footage)
        keys = array_keys(path)
        scale = self._scale
        if scale is None and "scale" in keys:
            scale = _stored_scale(path)
        intrinsics = _stored_intrinsics(path, footage.frames) if "intrinsics" in keys else None
        return self._clip(footage, intrinsics, scale, lambda: array_frames(path, key))

    def _from_images(self, footage: FootageInfo) -> DepthClip:
        try:
            files = sequence_files(self._path, _IMAGE_SUFFIXES, what="depth images")
        except MediaError as error:
            raise DepthError(str(error)) from error
        is_png = files[0].suffix.lower() == ".png"
        if is_png and self._mist is not None:
            raise DepthError(f"{self._path}: a mist pass is read from EXR files, and these are PNGs. Render EXRs.")
        if is_png and self._scale is None:
            raise DepthError(
                f"{self._path}: 16-bit PNGs hold whole numbers without a unit. Give the scale, such as 0.001 where "
                "1000 means one scene unit."
            )
        _check_count(self._path, len(files), footage)
        _check_size(str(files[0]), self._image(files[0]).shape, footage)

        def read() -> Iterator[np.ndarray]:
            for file in files:
                depth = self._image(file)
                _check_size(str(file), depth.shape, footage)
                yield depth

        return self._clip(footage, None, self._scale, read)

    def _clip(
        self,
        footage: FootageInfo,
        intrinsics: np.ndarray | None,
        scale: float | None,
        stored_frames: Callable[[], Iterator[np.ndarray]],
    ) -> DepthClip:
        factor = 1.0 if scale is None else scale

        def read() -> Iterator[np.ndarray]:
            for index, stored in enumerate(stored_frames()):
                what = f"{self._path}: frame {index}"
                if self._mist is None:
                    depth = depth_along_z(stored, factor, self._inverse)
                else:
                    mist, matrix = self._mist
                    matrix = np.broadcast_to(matrix, (footage.frames, 3, 3))[index]
                    depth = np.float32(factor) * mist_to_depth(stored, mist, matrix, what)
                yield checked_depth(depth, what, self._invalid)

        return DepthClip(
            footage=footage,
            intrinsics=intrinsics,
            scale="relative" if self._inverse else "metric",
            source=f"{self.name} ({self._path.name})",
            licence=self.licence,
            read=read,
        )

    def _image(self, file: Path) -> np.ndarray:
        try:
            if file.suffix.lower() == ".exr":
                channels = read_exr_channels(file)
                return channels[depth_channel(list(channels), self._key, file, mist=self._mist is not None)]
            image = read_png(file)
        except MediaError as error:
            raise DepthError(str(error)) from error
        if image.dtype != np.uint16:
            kind = "colour" if image.ndim == 3 else "8 bits"
            raise DepthError(f"{file}: is a PNG of {kind}, too coarse for depth. Export 16-bit gray PNGs or EXRs.")
        return image


def depth_channel(names: list[str], key: str | None, file: Path, mist: bool = False) -> str:
    """Which EXR channel holds depth: `key`, or one named as renderers name it.

    In order of trust: Depth or Z; a layer's Z or V (Blender's `ViewLayer.Depth.Z` / `.V`); anything in a layer Depth;
    V, Y or R alone.

    Args:
        names: of all channels.
        key: the one to take; None finds it.
        file: for messages.
        mist: a mist pass is wanted instead: anything in a layer Mist, or V, Y or R alone.

    Raises:
        DepthError: none, or several that are equally likely.
    """
    if key is not None:
        if key in names:
            return key
        raise DepthError(
            f"{file}: has no channel {key!r}; it holds {', '.join(names)}. Name the right one with --depth-key."
        )
    parts = {name: [part.lower() for part in name.split(".")] for name in names}
    in_mist = [name for name in names if "mist" in parts[name]]
    rules = (
        (lambda p: "mist" in p, lambda p: p in (["v"], ["y"]), lambda p: p == ["r"])
        if mist
        else (
            lambda p: p in (["depth"], ["z"]),
            lambda p: len(p) > 1 and "depth" in p[:-1] and p[-1] in ("z", "v", "y", "r"),
            lambda p: (
                len(p) > 1 and p[-1] in ("z", "v", "depth") and not {"mist", "normal", "position", "vector"} & set(p)
            ),
            lambda p: p in (["v"], ["y"]),
            lambda p: p == ["r"],
        )
    )
    for rule in rules:
        found = [name for name in names if rule(parts[name])]
        if len(found) == 1:
            return found[0]
        if found:
            raise DepthError(f"{file}: has several depth channels: {', '.join(found)}. Name one with --depth-key.")
    held = ", ".join(names) or "none"
    if in_mist and not mist:
        raise DepthError(
            f"{file}: has a mist pass ({in_mist[0]}) and no depth pass. Say what the world's mist was set to (Mist "
            "Pass in Blender, or --mist START DEPTH), or render the depth (Z) pass."
        )
    raise DepthError(
        f"{file}: has no {'mist' if mist else 'depth'} channel among {held}. Name it with --depth-key, or "
        "render that pass."
    )


def _check_count(path: Path, count: int, footage: FootageInfo) -> None:
    if count != footage.frames:
        raise DepthError(
            f"{path}: has depth for {count} frames, but the footage {footage.path.name} has {footage.frames}. "
            "Export depth for the same range of frames, or trim the longer one."
        )


def _check_size(what: str, shape: tuple[int, ...], footage: FootageInfo) -> None:
    if shape != (footage.height, footage.width):
        height, width = shape
        raise DepthError(
            f"{what}: depth is {width}x{height}, but the footage {footage.path.name} is "
            f"{footage.width}x{footage.height}. Export depth at the footage's size (and its orientation)."
        )


def _stored_scale(path: Path) -> float:
    scale = small_array(path, "scale").astype(np.float64)
    if scale.size != 1 or not np.isfinite(scale).all() or scale.item() <= 0:
        raise DepthError(f"{path}: 'scale' is {scale.tolist()}. Save one finite number above 0.")
    return scale.item()


def _stored_intrinsics(path: Path, frames: int) -> np.ndarray:
    intrinsics = small_array(path, "intrinsics").astype(np.float64)
    if intrinsics.shape not in ((3, 3), (frames, 3, 3)):
        raise DepthError(
            f"{path}: 'intrinsics' has shape {intrinsics.shape}. Save (3, 3), or ({frames}, 3, 3) for one per frame."
        )
    intrinsics = np.ascontiguousarray(np.broadcast_to(intrinsics, (frames, 3, 3)))
    valid = np.isfinite(intrinsics).all(axis=(1, 2)) & (intrinsics[:, 2] == (0, 0, 1)).all(axis=1)
    valid &= (intrinsics[:, [0, 1], [0, 1]] > 0).all(axis=1)
    if not valid.all():
        bad = int(np.argmin(valid))
        raise DepthError(
            f"{path}: 'intrinsics' of frame {bad} is {intrinsics[bad].tolist()}. Save finite values in pixels, with "
            "focal lengths above 0 and 0, 0, 1 in the last row."
        )
    return intrinsics
