"""Scans a video file, mostly without decoding it: its frames, when each is shown, and what is missing.

The first step of reading footage; `timeline.py` turns the result into a constant frame rate.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.codec
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ex4d.media import pixels
from ex4d.media.colour import ColourSpace, colour_note, colour_of, require_known_matrix
from ex4d.media.icc import IccConversion, conversion_of, profile_of
from ex4d.media.media_errors import (
    MediaError,
    most_pixels,
    require_room_for_image,
    require_room_for_video,
    unreadable,
)
from ex4d.media.sequences import IMAGE_SUFFIXES

# Only containers that hold their own frames: a playlist or a script must not make us open further files or addresses.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,mxf,flv,asf,ogg,gif,apng,"
    "dv,nut,yuv4mpegpipe,png_pipe,jpeg_pipe,mjpeg,bmp_pipe,tiff_pipe,webp_pipe,dpx_pipe,image2"
)

# Here one packet is one shown frame and carries its time, so counting packets is exact. Other files are decoded.
_ONE_PACKET_ONE_FRAME = {
    "mov": {"h264", "hevc", "av1", "vp9", "prores", "dnxhd", "mjpeg", "png", "qtrle", "cfhd", "rawvideo", "v210"},
    "matroska": {"h264", "hevc", "av1", "vp9", "prores", "ffv1", "mjpeg", "png", "rawvideo"},
}

NOT_SQUARE = "pixels are not square ({}); they are not stretched, and the lens accounts for it"
_WEBP_ANIMATED = 0x02  # a flag of the chunk VP8X
# Of these, each packet is a whole image file, whose ICC profile Pillow finds. FFmpeg joins an animation's.
_IMAGE_CODECS = ("png", "mjpeg")
# FFmpeg's own decoders of these leave out the transparency that WebM carries beside the picture.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Scan:
    """The result of scanning a video file.

    `times` (N,) int64 are the display times of the readable frames in units of `time_base`, sorted, or None where the
    file has none. `promised` is the number of frames that should be there: more than `readable` in a truncated file.
    `matched_by_time` is whether decoded frames are recognised by these times. `pixel_aspect` is the width of a pixel by
    its height, rotation applied. `declared` is the container's colour space, `profile` the conversion of an ICC
    profile, `interlaced` whether the frames consist of two fields.
    """

    width: int
    height: int
    orientation: pixels.Orientation
    notes: tuple[str, ...]
    readable: int
    promised: int
    times: np.ndarray | None
    last_duration: int
    time_base: Fraction
    declared_rates: tuple[Fraction, ...]
    keyframe_times: np.ndarray
    matched_by_time: bool
    pixel_aspect: float = 1.0
    declared: ColourSpace = field(default_factory=ColourSpace)
    profile: IccConversion | None = None
    interlaced: bool = False


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's default video stream, or its first one that is not cover art.

    Raises:
        MediaError: missing, unreadable, empty, not a video, or without a video stream.
        MemoryRoomError: its frames do not fit into memory.
    """
    is_image, limit = path.suffix.lower() in IMAGE_SUFFIXES, {"max_pixels": str(min(most_pixels(), 2**31 - 1))}
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head:
        raise MediaError(f"{path}: the file is empty (0 bytes). Copy or export it again.")
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20] & _WEBP_ANIMATED:
        raise MediaError(f"{path}: is an animated WebP, which is not read. Convert it to .mp4, .gif or single images.")
    try:
        container = av.open(
            f"file:{path}",
            # An image tells its size only to its decoder, which shall not decode it before that is checked.
            options={
                "format_whitelist": _CONTAINERS,
                "protocol_whitelist": "file",
                **({"skip_frame": "all"} if is_image else limit),
            },
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if head[4:8] == b"ftyp":
            raise MediaError(
                f"{path}: truncated or damaged: 0 frames are readable, because the index that an .mp4 or .mov keeps "
                "at its end is missing. Copy or export the file again."
            ) from error
        raise MediaError(f"{path}: not a readable video. Export it as .mp4 or .mov (H.264, ProRes).") from error
    with container:
        streams = _by_preference(container)
        if not streams:
            has_sound = " (sound only)" if container.streams.audio else ""
            raise MediaError(f"{path}: has no video stream{has_sound}. Choose a video.")
        context = streams[0].codec_context
        (require_room_for_image if is_image else require_room_for_video)(context.width, context.height, path)
        context.skip_frame = "DEFAULT"
        context.options = limit
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _by_preference(container: InputContainer) -> list[VideoStream]:
    """The video streams that are not cover art, those with the default flag first.

    The still picture of an animated AVIF is a stream of one frame beside the animation, with the same flag.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return sorted(streams, key=lambda one: (not one.disposition & Disposition.default, one.frames == 1))


def scan(path: Path) -> Scan:
    """Scan the file at `path`; the results of the last few files are cached while these do not change.

    Raises:
        MediaError: not a video, or nothing in it can be decoded.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return _scan(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=16)
def _scan(path: Path, _version: tuple[int, ...]) -> Scan:
    with open_video(path) as (container, stream):
        codec = stream.codec_context.name
        trusted = codec in _ONE_PACKET_ONE_FRAME.get(container.format.name.split(",")[0], ())
        # Before anything is decoded: a decoder whose frames say nothing puts that into the context.
        declared = colour_of(stream.codec_context)
        chosen = _stream_note(container, stream)
        packets = _PacketCount(container, stream)
    times = packets.shown_times() if trusted else None
    matched_by_time = times is not None
    first, decoded_times, undamaged = _decode(path, only_first=matched_by_time and packets.complete)
    if first is None:
        of = f" of {packets.promised}" if packets.promised else ""
        raise MediaError(f"{path}: 0{of} frames are readable. Copy or export the file again.")
    if not matched_by_time:
        times = _strictly_rising(decoded_times)
        readable = len(decoded_times)
    elif packets.complete:
        readable = len(times)
    else:
        readable = _unbroken(times, decoded_times)
        times = times[:readable]
    whole = packets.complete and undamaged
    promised = readable if whole else max(packets.promised or packets.count, readable + 1)
    turn = pixels.orientation(first, codec)
    space = colour_of(first, declared)
    if pixels.is_yuv(first.format):
        require_known_matrix(space, path)
    profile = _profile(path, codec, packets.first)
    width, height = (first.height, first.width) if turn[1] else (first.width, first.height)
    aspect = packets.pixel_aspect or Fraction(1)
    return Scan(
        width=width,
        height=height,
        orientation=turn,
        notes=(*chosen, *_notes(first, packets.pixel_aspect, profile.note if profile else colour_note(space))),
        readable=readable,
        promised=promised,
        times=times,
        last_duration=packets.last_duration,
        time_base=packets.time_base,
        declared_rates=packets.declared_rates,
        keyframe_times=packets.keyframe_times,
        matched_by_time=matched_by_time,
        pixel_aspect=float(1 / aspect if turn[1] else aspect),
        declared=declared,
        profile=profile,
        interlaced=bool(first.interlaced_frame),
    )


def _stream_note(container: InputContainer, stream: VideoStream) -> tuple[str, ...]:
    """Which video stream is used, where a file has several."""
    others = [one for one in _by_preference(container) if one.index != stream.index]
    if not others:
        return ()

    def named(one: VideoStream) -> str:
        return f"{one.index} ({one.width}x{one.height})"

    used = "the file's default" if stream.disposition & Disposition.default else "the file's first"
    unused = ", ".join(named(one) for one in others)
    return (f"video stream {named(stream)} is used, {used}; not used: {unused}",)


def _profile(path: Path, codec: str, first_packet: bytes) -> IccConversion | None:
    if codec in _IMAGE_CODECS:
        return conversion_of(profile_of(first_packet))
    return conversion_of(profile_of(path)) if codec == "apng" else None


class _PacketCount:
    """The packets of a video stream, counted and compared with what the container announces."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.time_base = stream.time_base or Fraction(1, 1000)
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        self.declared_rates = tuple(dict.fromkeys(Fraction(rate) for rate in rates if rate))
        shown: list[int | None] = []
        durations: dict[int | None, int] = {}
        packets = 0
        whole = True
        self.first = b""
        keyframes: list[int] = []
        try:
            for packet in container.demux(stream):
                if packet.dts is None and packet.size == 0:
                    continue  # the end-of-stream mark
                if packet.is_corrupt and container.format.name != "mpegts":
                    whole = False
                    continue
                if not packets and stream.codec_context.name in _IMAGE_CODECS:
                    self.first = bytes(packet)
                packets += 1
                # Of a trimmed file, frames before its start are decoded, but not shown; the first keyframe may be one.
                if packet.is_keyframe and packet.pts is not None:
                    keyframes.append(packet.pts)
                if not packet.is_discard:
                    shown.append(packet.pts)
                    durations[packet.pts] = packet.duration or 0
        except av.error.FFmpegError:
            whole = False
        self._shown = shown
        self.count = len(shown)
        announced, seen_all = _announced(container, stream, packets, durations)
        self.promised = announced
        self.complete = whole and seen_all
        self.keyframe_times = np.array(sorted(keyframes), dtype=np.int64)
        known = [pts for pts in durations if pts is not None]
        self.last_duration = durations[max(known)] if known else 0

    def shown_times(self) -> np.ndarray | None:
        """Display times (N,) in order, or None unless every packet has its own."""
        times = [pts for pts in self._shown if pts is not None]
        if not times or len(set(times)) != len(self._shown) or not len(self.keyframe_times):
            return None
        # A cut in the middle of a group of pictures leaves frames in front that depend on a missing keyframe.
        return np.array(sorted(pts for pts in times if pts >= self.keyframe_times[0]), dtype=np.int64)


def _announced(
    container: InputContainer, stream: VideoStream, packets: int, durations: dict[int | None, int]
) -> tuple[int | None, bool]:
    """The number of frames that the container announces, if it does, and whether all its packets were there."""
    name = container.format.name.split(",")[0]
    if name == "mov":
        indexed = len(stream.index_entries)
        discarded = sum(entry.is_discard for entry in stream.index_entries)
        return indexed - discarded, packets >= indexed
    if name == "avi" and stream.frames:
        return stream.frames, packets >= stream.frames
    duration = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    rate = stream.average_rate or stream.guessed_rate
    if name == "matroska" and duration and rate:
        hours, minutes, seconds = map(float, duration.groups())
        announced_seconds = hours * 3600 + minutes * 60 + seconds
        known = [pts for pts in durations if pts is not None]
        end = float((max(known) + durations[max(known)]) * (stream.time_base or 0)) if known else 0.0
        return round(announced_seconds * rate), end > announced_seconds - 1.5 / float(rate)
    return None, True


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the stream's frames in display order.

    Raises:
        DamagedVideoError: after the last frame before the first damaged one.
    """
    damage = None
    decode = _alpha_decoder(stream)
    try:
        for packet in container.demux(stream):
            yield from decode(packet) if decode else packet.decode()
    except (av.error.FFmpegError, IndexError) as error:
        damage = error
        with suppress(av.error.FFmpegError, EOFError):
            yield from stream.decode(None)  # frames that the decoder still holds for reordering are intact
    if damage is not None:
        raise DamagedVideoError(f"{container.name}: damaged ({damage})") from damage


def _alpha_decoder(stream: VideoStream) -> Callable[[Packet], list[av.VideoFrame]] | None:
    """The decoder for a stream with transparency that FFmpeg's own would ignore; None for all others."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name, "")
    if stream.metadata.get("alpha_mode") != "1" or name not in av.codec.codecs_available:
        return None
    context = cast("VideoCodecContext", av.CodecContext.create(name, "r"))

    def decode(packet: Packet) -> list[av.VideoFrame]:
        frames = context.decode(packet if packet.size else None)
        return [frame for frame in frames if isinstance(frame, av.VideoFrame)]

    return decode


class DamagedVideoError(MediaError):
    """A stream cannot be decoded any further; the caller reports at which frame."""


def _decode(path: Path, only_first: bool) -> tuple[av.VideoFrame | None, list[int | None], bool]:
    """The first frame, the display times of as many frames as can be decoded, and whether there was no error."""
    first = None
    times: list[int | None] = []
    with open_video(path) as (container, stream):
        try:
            for frame in decoded_frames(container, stream):
                first = first or frame
                times.append(frame.pts)
                if only_first:
                    break
        except DamagedVideoError:
            return first, times, False
    return first, times, True


def _strictly_rising(times: list[int | None]) -> np.ndarray | None:
    if any(time is None for time in times):
        return None
    array = np.array(times, dtype=np.int64)
    return array if (np.diff(array) > 0).all() else None


def _unbroken(expected: np.ndarray, decoded: list[int | None]) -> int:
    """The number of frames from the first on that were decoded, of a file that is cut off in decoding order.

    The file's last packets may be shown later than packets that are gone: a step much longer than usual among the
    last frames (reordering never reaches back further than 16) is such a hole.
    """
    found = set(decoded)
    missing = np.flatnonzero([time not in found for time in expected.tolist()])
    count = int(missing[0]) if len(missing) else len(expected)
    steps = np.diff(expected[:count])
    tail = max(0, len(steps) - 16)
    holes = np.flatnonzero(steps[tail:] > 1.5 * np.median(steps)) if len(steps) else np.empty(0, int)
    return int(tail + holes[0] + 1) if len(holes) else count


def _notes(first: av.VideoFrame, pixel_aspect: Fraction, colours: str | None) -> tuple[str, ...]:
    notes = []
    if pixel_aspect not in (0, 1):
        notes.append(NOT_SQUARE.format(pixel_aspect))
    # FFmpeg decodes every GIF to this format, and its first frame is whole.
    is_opaque = first.format.name == "bgra" and first.to_ndarray()[..., 3].min() == 255
    if pixels.has_alpha(first.format) and not is_opaque:
        notes.append("transparency is composited over black")
    if first.interlaced_frame:
        notes.append("the footage is interlaced; it is deinterlaced, one frame for two fields")
    if colours:
        notes.append(colours)
    return tuple(notes)
