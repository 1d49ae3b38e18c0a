"""Writes movies of 10 bits: ProRes 4444 with alpha, DNxHR HQX, and H.265; complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from ex4d.media.deep_pixels import frame_of_deep
from ex4d.media.media_errors import MediaError, atomic_write, translate_write_errors
from ex4d.media.pixels import BT709, LIMITED_RANGE, WRITE_FLAGS
from ex4d.media.stereo_boxes import StereoKind, mark_as_stereo
from ex4d.media.video_writer import SQUARE

_REORDERING_DELAY = 2  # frames, of H.265 with B frames that B frames refer to


@dataclass(frozen=True)
class MovieKind:
    """A codec as we use it."""

    suffix: str
    codec: str
    pixel_format: str
    has_alpha: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""


MOVIES = {
    "prores4444": MovieKind(
        ".mov", "prores_ks", "yuva444p10le", True, {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
    ),
    "dnxhr": MovieKind(".mov", "dnxhd", "yuv422p10le", False, {"profile": "dnxhr_hqx"}),
    # hvc1, which players of Apple's ask for.
    "h265": MovieKind(".mp4", "libx265", "yuv420p10le", False, {"crf": "12", "x265-params": "log-level=error"}, "hvc1"),
}


class DeepVideoWriter:
    """Writes frames of floats to a movie in BT.709, limited range, that appears when the `with` block ends well.

    Raises:
        MediaError: the file cannot be written, no frame was, or the codec does not take frames of this size.
    """

    def __init__(
        self,
        path: Path,
        kind: MovieKind,
        width: int,
        height: int,
        fps: Fraction,
        *,
        pixel_aspect: float = 1.0,
        timecode: str = "",
        metadata: Mapping[str, str] | None = None,
        stereo: StereoKind | None = None,
    ) -> None:
        """Prepare a file.

        Args:
            path: the file; an existing one is replaced.
            kind: one of `MOVIES`.
            width: pixels.
            height: pixels.
            fps: frames per second, kept exactly.
            pixel_aspect: width of a pixel by its height.
            timecode: of the first frame; "" for none.
            metadata: texts by key, stored in the container.
            stereo: how frames have the images of two eyes, which the file then says.
        """
        if kind.pixel_format != "yuva444p10le" and (width % 2 or height % 2):
            raise MediaError(
                f"{path}: {kind.codec} takes even sizes, not {width}x{height}: use --size, exr or prores4444"
            )
        self.path, self.kind, self.frames = path, kind, 0
        self._size, self._fps, self._aspect, self._timecode = (width, height), fps, pixel_aspect, timecode
        self._metadata, self._reformatter = dict(metadata or {}), VideoReformatter()
        self._stereo: StereoKind | None = stereo
        self._container: OutputContainer | None = None

    def __enter__(self) -> DeepVideoWriter:
        """Create the partial file."""
        with ExitStack() as stack:
            partial = self._partial = stack.enter_context(atomic_write(self.path))
            options = {"movflags": "+faststart+use_metadata_tags"}
            with translate_write_errors(self.path):
                container = av.open(f"file:{partial}", "w", format=self.kind.suffix[1:], options=options)
            container.metadata.update(self._metadata)
            stream = container.add_stream(self.kind.codec, rate=self._fps, options=dict(self.kind.options))
            self._stream = cast("VideoStream", stream)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = self.kind.pixel_format
            context = self._stream.codec_context
            if self.kind.tag:
                context.codec_tag = self.kind.tag
            if abs(self._aspect - 1) >= SQUARE:
                context.sample_aspect_ratio = Fraction(self._aspect).limit_denominator(200)
            context.color_range = LIMITED_RANGE
            context.colorspace = context.color_primaries = context.color_trc = BT709
            if self._timecode:
                self._stream.metadata["timecode"] = self._timecode
            self._container = container
            with translate_write_errors(self.path):
                container.start_encoding()
            self._unfinished = stack.pop_all()
        return self

    def write(self, color: np.ndarray, alpha: np.ndarray) -> None:
        """Append a frame.

        Args:
            color: (H, W, 3) float32, clipped to [0, 1]; straight where the codec has alpha.
            alpha: (H, W) float32 in [0, 1].
        """
        assert self._container is not None, "inside the with block"
        frame = self._reformatter.reformat(
            frame_of_deep(np.clip(color, 0.0, 1.0), alpha if self.kind.has_alpha else None),
            format=self.kind.pixel_format,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=WRITE_FLAGS,
            threads=1,
        )
        frame.pts, frame.time_base = self.frames, 1 / self._fps
        with translate_write_errors(self.path):
            self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete and rename the file, or remove it after an error."""
        container, self._container = self._container, None
        assert container is not None, "entered"
        if error is not None:
            with suppress(av.error.FFmpegError, OSError):
                container.close()
            self._unfinished.__exit__(kind, error, trace)
            return
        with self._unfinished:
            with translate_write_errors(self.path):
                if self.frames:
                    container.mux(self._last_packets())
                container.close()
                if self.frames and self._stereo is not None:
                    mark_as_stereo(Path(self._partial), self._stereo)
            if not self.frames:
                raise MediaError(f"{self.path}: no frame was written. Render at least one.")

    def _last_packets(self) -> list[Packet]:
        """What the encoder holds back."""
        packets = self._stream.encode()
        if self.frames <= _REORDERING_DELAY:
            # x265 sets no decoding times in movies that are not longer than its delay: they are what memory holds.
            for packet in packets:
                packet.dts = packet.pts
        return packets
