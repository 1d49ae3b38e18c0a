"""Footage in: what a video file or an image sequence holds, and its frames one at a time, upright, in sRGB.

The start of the flow: everything behind it sees (H, W, 3) uint8 frames at a constant rate and never a codec.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ex4d.media import pixels
from ex4d.media.media_errors import MediaError, system_reason
from ex4d.media.png import png_frame
from ex4d.media.scan import Damaged, Scan, decoded_frames, opened_video, scan
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, numbering_gap, sequence_files
from ex4d.media.timeline import Timeline, constant_rate

DEFAULT_SEQUENCE_FPS = Fraction(24)  # an image sequence carries no rate; 24 is Blender's own default


@dataclass(frozen=True)
class FootageInfo:
    """What `read_frames` will yield for a file or an image sequence.

    Attributes:
        path: the file, folder or pattern.
        width, height: pixels as displayed, rotation applied; non-square pixels are not stretched (see `notes`).
        frames: how many frames `read_frames` yields; for a variable frame rate, after resampling.
        fps: frames per second, constant.
        rotation: degrees clockwise by which the stored pictures are turned to stand upright: 0, 90, 180, 270.
        variable_frame_rate: whether frames are repeated or left out to get a constant rate.
        bit_depth: bits per stored component; frames come as 8 bits always.
        has_alpha: whether stored pictures may be transparent; they are composited over black.
        codec: the codec's short name, such as h264.
        pixel_aspect: width of a pixel over its height.
        notes: sentences for the artist about what was not taken over as it is.
    """

    path: Path
    width: int
    height: int
    frames: int
    fps: Fraction
    rotation: int = 0
    variable_frame_rate: bool = False
    bit_depth: int = 8
    has_alpha: bool = False
    codec: str = ""
    pixel_aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()


def probe(path: str | os.PathLike, count: int | None = None, *, fps: Fraction | int | None = None) -> FootageInfo:
    """Looks at footage without decoding more than is needed for an exact frame count.

    Args:
        path: a video file, a folder of numbered images, or a pattern (shot_%04d.png, shot_####.png, shot_*.png).
        count: only this many frames are wanted; what is missing behind them is then no error.
        fps: rate of an image sequence (24 where not given); video files bring their own.

    Raises:
        MediaError: missing, unreadable, empty, not a video, truncated, or shorter than `count`.
    """
    info = _look(Path(path), fps, may_be_truncated=count is not None)
    if count is None:
        return info
    _check_range(info, 0, count)
    return replace(info, frames=count)


def read_frames(
    path: str | os.PathLike, start: int = 0, count: int | None = None, *, fps: Fraction | int | None = None
) -> Iterator[np.ndarray]:
    """Yields (H, W, 3) uint8 sRGB frames, full range, upright, in display order, holding one at a time.

    Args:
        path, fps: as for `probe`.
        start: index of the first frame, counted from 0 at the constant rate.
        count: how many frames; all the rest where not given.

    Raises:
        MediaError: as `probe`, at once; later, when a frame turns out to be undecodable.
    """
    path = Path(path)
    info = _look(path, fps, may_be_truncated=count is not None)
    count = info.frames - start if count is None else count
    _check_range(info, start, count)
    info = replace(info, frames=start + count)
    if is_sequence(path):
        return _sequence_frames(info, sequence_files(path, IMAGE_SUFFIXES)[start : info.frames])
    found = scan(path)
    return _video_frames(info, found, constant_rate(found), start)


def _look(path: Path, fps: Fraction | int | None, may_be_truncated: bool) -> FootageInfo:
    if is_sequence(path):
        return _sequence_info(path, sequence_files(path, IMAGE_SUFFIXES), fps)
    if fps is not None:
        raise MediaError(f"{path}: fps={fps} was given, but a video file brings its own rate. Leave it out.")
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
            f"{info.path}: frames {start} to {start + count - 1} were asked for, but it has {info.frames} "
            f"(0 to {info.frames - 1}). Choose a range inside."
        )


def _video_info(path: Path, found: Scan, timeline: Timeline) -> FootageInfo:
    notes = found.notes
    if timeline.resampled:
        notes += (f"the frame rate varies; resampled to a constant {float(timeline.fps):.5g} frames per second",)
    return FootageInfo(
        path=path,
        width=found.width,
        height=found.height,
        frames=len(timeline.source_index),
        fps=timeline.fps,
        rotation=pixels.clockwise_degrees(found.orientation),
        variable_frame_rate=timeline.resampled,
        bit_depth=found.bit_depth,
        has_alpha=found.has_alpha,
        codec=found.codec,
        pixel_aspect=found.pixel_aspect,
        notes=notes,
    )


def _video_frames(info: FootageInfo, found: Scan, timeline: Timeline, start: int) -> Iterator[np.ndarray]:
    wanted = timeline.source_index[start : info.frames]
    converter = pixels.FrameConverter(found.orientation)
    sources = _decoded(info.path, found, int(wanted[0]))
    position, picture = -1, None
    for number, index in enumerate(wanted.tolist(), start):
        if index == position:
            picture = picture.copy()  # shown again; the receiver may have drawn into the last one
        else:
            position, frame = next((pair for pair in sources if pair[0] >= index), (-1, None))
            if position != index:
                missing = (
                    f"{info.path}: damaged: frame {number} cannot be decoded ({number} of {len(timeline.source_index)}"
                )
                raise MediaError(f"{missing} are readable from the start). Export it again, or use count={number}.")
            if turned_size(frame, found.orientation) != (info.width, info.height):
                raise MediaError(
                    f"{info.path}: the picture size changes from {info.width}x{info.height} to "
                    f"{frame.width}x{frame.height} at frame {number}. Export it at one size."
                )
            picture = converter.rgb(frame)
        yield picture


def turned_size(frame: av.VideoFrame, turn: pixels.Orientation) -> tuple[int, int]:
    """(width, height) of a decoded frame as displayed."""
    return (frame.height, frame.width) if turn[1] else (frame.width, frame.height)


def _decoded(path: Path, found: Scan, first_wanted: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decoded frames with their index in display order, from `first_wanted` or somewhat earlier on."""
    index_of_time = {time: index for index, time in enumerate(found.times.tolist())} if found.matched_by_time else None
    with opened_video(path) as (container, stream):
        if index_of_time is not None:
            # One keyframe further back than needed: frames that follow a keyframe in the file but precede it on
            # screen lean on the group of pictures before.
            before = found.keyframe_times[found.keyframe_times <= found.times[first_wanted]]
            if len(before) > 2:
                container.seek(int(before[-2]), stream=stream, backward=True)
        try:
            for count, frame in enumerate(decoded_frames(container, stream)):
                index = count if index_of_time is None else index_of_time.get(frame.pts)
                if index is not None:
                    yield index, frame
        except Damaged:
            return  # the receiver misses its frame and says which


def _sequence_info(path: Path, files: list[Path], fps: Fraction | int | None) -> FootageInfo:
    rate = DEFAULT_SEQUENCE_FPS if fps is None else Fraction(fps)
    if rate <= 0:
        raise MediaError(f"{path}: fps={fps} is not a frame rate. Give one above 0, such as 24 or 25.")
    frame = _image(files[0])
    turn = pixels.orientation(frame)
    width, height = turned_size(frame, turn)
    gap = numbering_gap(files)
    notes = (gap,) if gap else ()
    if pixels.has_alpha(frame.format):
        notes += ("transparency is composited over black",)
    return FootageInfo(
        path=path,
        width=width,
        height=height,
        frames=len(files),
        fps=rate,
        rotation=pixels.clockwise_degrees(turn),
        bit_depth=max(component.bits for component in frame.format.components),
        has_alpha=pixels.has_alpha(frame.format),
        codec=files[0].suffix.lower().lstrip("."),
        notes=notes,
    )


def _sequence_frames(info: FootageInfo, files: list[Path]) -> Iterator[np.ndarray]:
    converters: dict[pixels.Orientation, pixels.FrameConverter] = {}
    for file in files:
        frame = _image(file)
        turn = pixels.orientation(frame)
        if turned_size(frame, turn) != (info.width, info.height):
            size = "x".join(map(str, turned_size(frame, turn)))
            raise MediaError(
                f"{file}: is {size}, but the first image of the sequence is {info.width}x{info.height}. "
                "Export all images at one size."
            )
        converter = converters.setdefault(turn, pixels.FrameConverter(turn))
        yield converter.rgb(frame)


def _image(file: Path) -> av.VideoFrame:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise MediaError(
            f"{file}: cannot be opened ({system_reason(error)}). Check the path and permissions."
        ) from error
    if file.suffix.lower() == ".png":
        return png_frame(data, file)
    if file.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-65536:]:
        raise MediaError(f"{file}: truncated: the image's end is missing. Copy or render it again.")
    with opened_video(file) as (container, stream), suppress(Damaged):
        for frame in decoded_frames(container, stream):
            return frame
    raise MediaError(f"{file}: not an image that can be read. Copy or render it again.")
