"""Reads footage: information about a video file or an image sequence, and its frames, upright, in sRGB.

The start of the data flow: all other modules see (H, W, 3) uint8 frames at a constant rate and never a codec, or where
more than 8 bits are kept float32 frames in the footage's own colours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ex4d.media import pixels
from ex4d.media.exr import exr_pixel_aspect
from ex4d.media.filters import deinterlaced
from ex4d.media.images import ImageReader
from ex4d.media.media_errors import MediaError
from ex4d.media.scan import NOT_SQUARE, DamagedVideoError, Scan, decoded_frames, open_video, scan
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, numbering_gap, sequence_files
from ex4d.media.timeline import Timeline, constant_rate

DEFAULT_SEQUENCE_FPS = Fraction(24)  # an image sequence carries no rate; 24 is Blender's own default


@dataclass(frozen=True)
class FootageInfo:
    """Properties of a video file or an image sequence, as `read_frames` will yield it.

    Attributes:
        path: the file, folder or pattern.
        width, height: pixels as displayed, rotation applied; non-square pixels are not stretched (see `notes`).
        frames: the number of frames that `read_frames` yields; for a variable frame rate, after resampling.
        fps: frames per second, constant.
        notes: sentences for the artist about what is changed or ignored.
        pixel_aspect: width of a pixel by its height.
    """

    path: Path
    width: int
    height: int
    frames: int
    fps: Fraction
    notes: tuple[str, ...] = ()
    pixel_aspect: float = 1.0


def probe(path: str | os.PathLike[str], count: int | None = None, *, fps: Fraction | int | None = None) -> FootageInfo:
    """Inspect footage without decoding more than is needed for an exact frame count.

    Args:
        path: a video file, a folder of numbered images, or a pattern (shot_%04d.png, shot_####.png, shot_*.png).
        count: only this many frames are needed; frames missing after them are then no error.
        fps: rate of an image sequence (default 24); video files have their own.

    Raises:
        MediaError: missing, unreadable, empty, not a video, truncated, or shorter than `count`.
    """
    info = _inspect(Path(path), fps, may_be_truncated=count is not None)
    if count is None:
        return info
    _check_range(info, 0, count)
    return replace(info, frames=count)


def read_frames(
    path: str | os.PathLike[str], start: int = 0, count: int | None = None, *, fps: Fraction | int | None = None
) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) uint8 sRGB frames, full range, upright, in display order, holding one at a time.

    Args:
        path: as for `probe`.
        start: index of the first frame, counted from 0 at the constant rate.
        count: the number of frames; without it, all that follow.
        fps: as for `probe`.

    Raises:
        MediaError: as `probe`, at once; later, if a frame cannot be decoded.
    """
    return _frames(
        Path(path), start, count, fps, pixels.FrameConverter.rgb, lambda reader, file: reader.read(file).pixels
    )


def read_deep_frames(
    path: str | os.PathLike[str], start: int = 0, count: int | None = None, *, fps: Fraction | int | None = None
) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) float32 frames as the footage encodes its colours, upright: see `deep_source` for the space.

    Values of integers are in [0, 1], those of EXR files as they are. Arguments and errors as of `read_frames`, whose
    frames these are.
    """
    return _frames(Path(path), start, count, fps, pixels.FrameConverter.deep, ImageReader.read_deep)


def _frames(
    path: Path,
    start: int,
    count: int | None,
    fps: Fraction | int | None,
    convert: Callable[[pixels.FrameConverter, av.VideoFrame], np.ndarray],
    read: Callable[[ImageReader, Path], np.ndarray],
) -> Iterator[np.ndarray]:
    info = _inspect(path, fps, may_be_truncated=count is not None)
    count = info.frames - start if count is None else count
    _check_range(info, start, count)
    info = replace(info, frames=start + count)
    if is_sequence(path):
        return _sequence_frames(info, sequence_files(path, IMAGE_SUFFIXES)[start : info.frames], read)
    found = scan(path)
    return _video_frames(info, found, constant_rate(found), start, convert)


def _inspect(path: Path, fps: Fraction | int | None, may_be_truncated: bool) -> FootageInfo:
    if is_sequence(path):
        return _sequence_info(path, sequence_files(path, IMAGE_SUFFIXES), fps)
    if fps is not None:
        raise MediaError(f"{path}: fps={fps} is for image sequences only; a video file has its own rate. Omit it.")
    found = scan(path)
    info = _video_info(path, found, constant_rate(found))
    if found.readable < found.promised and not may_be_truncated:
        raise MediaError(
            f"{path}: truncated: only {found.readable} of {found.promised} frames are readable. Copy or export "
            f"the file again, or ask for the readable part with count={info.frames}."
        )
    return info


def _check_range(info: FootageInfo, start: int, count: int) -> None:
    if start < 0 or count < 1 or start + count > info.frames:
        raise MediaError(
            f"{info.path}: has no frames {start} to {start + count - 1}, only {info.frames} "
            f"(0 to {info.frames - 1}). Choose a range within these."
        )


def _video_info(path: Path, found: Scan, timeline: Timeline) -> FootageInfo:
    notes = found.notes
    if timeline.resampled:
        changes = f"{timeline.held or 'no'} frames shown again, {timeline.dropped or 'none'} dropped"
        rate = f"{float(timeline.fps):.5g} frames per second"
        notes += (f"the frame rate varies; resampled to a constant {rate}: {changes}",)
    return FootageInfo(
        path=path,
        width=found.width,
        height=found.height,
        frames=len(timeline.source_index),
        fps=timeline.fps,
        notes=notes,
        pixel_aspect=found.pixel_aspect,
    )


def _video_frames(
    info: FootageInfo,
    found: Scan,
    timeline: Timeline,
    start: int,
    convert: Callable[[pixels.FrameConverter, av.VideoFrame], np.ndarray],
) -> Iterator[np.ndarray]:
    indices = timeline.source_index[start : info.frames]
    converter = pixels.FrameConverter(found.orientation, found.declared, found.profile)
    sources = _decoded(info.path, found, int(indices[0]))
    if found.interlaced:
        sources = deinterlaced(sources)
    position, image = -1, np.empty(0, np.uint8)
    for number, index in enumerate(indices.tolist(), start):
        if index == position:
            image = image.copy()  # shown again; the caller may have changed the last one
        else:
            position, frame = next((pair for pair in sources if pair[0] >= index), (-1, None))
            if frame is None or position != index:
                missing = (
                    f"{info.path}: damaged: frame {number} cannot be decoded ({number} of {len(timeline.source_index)}"
                )
                raise MediaError(f"{missing} are readable from the start). Export it again, or use count={number}.")
            if turned_size(frame, found.orientation) != (info.width, info.height):
                raise MediaError(
                    f"{info.path}: the frame size changes from {info.width}x{info.height} to "
                    f"{frame.width}x{frame.height} at frame {number}. Export it at one size."
                )
            image = convert(converter, frame)
        yield image


def turned_size(frame: av.VideoFrame, turn: pixels.Orientation) -> tuple[int, int]:
    """(width, height) of a decoded frame as displayed."""
    return (frame.height, frame.width) if turn[1] else (frame.width, frame.height)


def _decoded(path: Path, found: Scan, first_needed: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decoded frames with their index in display order, from `first_needed` or somewhat earlier on."""
    times = found.times if found.matched_by_time else None
    index_of_time = None if times is None else {time: index for index, time in enumerate(times.tolist())}
    with open_video(path) as (container, stream):
        if times is not None:
            # One keyframe earlier than needed: frames that follow a keyframe in the file but precede it on screen
            # depend on the group of pictures before.
            before = found.keyframe_times[found.keyframe_times <= times[first_needed]]
            if len(before) > 2:
                container.seek(int(before[-2]), stream=stream, backward=True)
        try:
            for count, frame in enumerate(decoded_frames(container, stream)):
                index = count if index_of_time is None else index_of_time.get(frame.pts)
                if index is not None:
                    yield index, frame
        except DamagedVideoError:
            return  # the caller reports which frame is missing


def _sequence_info(path: Path, files: list[Path], fps: Fraction | int | None) -> FootageInfo:
    rate = DEFAULT_SEQUENCE_FPS if fps is None else Fraction(fps)
    if rate <= 0:
        raise MediaError(f"{path}: invalid fps {fps}: expected a rate above 0, such as 24 or 25.")
    first = ImageReader().read(files[0])
    height, width = first.pixels.shape[:2]
    gap = numbering_gap(files)
    aspect = exr_pixel_aspect(files[0]) if files[0].suffix.lower() == ".exr" else 1.0
    stretched = () if aspect == 1 else (NOT_SQUARE.format(f"{aspect:.4g}"),)
    return FootageInfo(
        path=path,
        width=width,
        height=height,
        frames=len(files),
        fps=rate,
        notes=((gap,) if gap else ()) + first.notes + stretched,
        pixel_aspect=aspect,
    )


def _sequence_frames(
    info: FootageInfo, files: list[Path], read: Callable[[ImageReader, Path], np.ndarray]
) -> Iterator[np.ndarray]:
    reader = ImageReader()
    for file in files:
        image = read(reader, file)
        height, width = image.shape[:2]
        if (width, height) != (info.width, info.height):
            raise MediaError(
                f"{file}: is {width}x{height}, but the first image of the sequence is {info.width}x{info.height}. "
                "Export all images at one size."
            )
        yield image
