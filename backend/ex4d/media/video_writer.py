"""Video out: H.264 .mp4 files that editors and Blender read with the right colours, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np

from ex4d.media.media_errors import MediaError, writing, written_whole
from ex4d.media.pixels import BT709, LIMITED_RANGE, YuvEncoderFrames, as_rgb
from ex4d.media.scan import opened_video

_TECHNICAL_KEYS = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # written by the muxer itself


class VideoWriter:
    """Writes frames to an .mp4 (H.264, BT.709, limited range, index in front).

    Even sizes are stored as yuv420p. Odd sizes cannot be, and are stored as yuv444p, which Blender and editors read
    but some browsers and phones do not.

    The file appears at `path` when the `with` block ends well; after any error nothing is left of it. Until then it
    grows as `path` + ".partial". Where several files shall appear together or not at all, `finish` each at the end of
    the block that they share.

        with VideoWriter("take.mp4", 512, 512, Fraction(30), metadata={"engine": "preview"}) as video:
            for frame in frames:
                video.write(frame)

    Args:
        path: the file; an existing one is replaced.
        width, height: pixels.
        fps: frames per second, kept exactly.
        crf: x264's constant rate factor, 0 (lossless) to 51; 14 is visually lossless for repainting further on.
        metadata: texts by key, stored in the container, readable by `read_metadata`.

    Raises:
        DiskFullError, MediaError: the file cannot be written, or no frame was.
        ValueError: impossible size, rate or frame.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        width: int,
        height: int,
        fps: Fraction | int,
        *,
        crf: int = 14,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if width < 1 or height < 1 or fps <= 0:
            raise ValueError(f"a video needs a size and a rate above 0, not {width}x{height} at {fps} fps")
        self.path = Path(path)
        self.frames = 0
        self._width, self._height, self._fps, self._crf = width, height, Fraction(fps), crf
        self._metadata = dict(metadata or {})
        self._pixel_format = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
        self._converter = YuvEncoderFrames(self._pixel_format)
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(written_whole(self.path))
            with writing(self.path):
                self._container = av.open(
                    f"file:{partial}", "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
                )
            self._container.metadata.update(self._metadata)
            keyframe_interval = max(1, round(self._fps))  # one a second, so that scrubbing in an editor is quick
            # Measured on a 512x512 clip: "veryfast" takes half of the time of "medium" for the same size and 0.5 dB
            # less; "fastdecode" without B-frames decodes, scrubs and opens in half of the time for 28 % more bytes.
            self._stream = self._container.add_stream(
                "libx264",
                rate=self._fps,
                options={
                    "crf": str(self._crf),
                    "preset": "veryfast",
                    "tune": "fastdecode",
                    "bf": "0",
                    "g": str(keyframe_interval),
                },
            )
            self._stream.width, self._stream.height = self._width, self._height
            self._stream.pix_fmt = self._pixel_format
            context = self._stream.codec_context
            context.color_range = LIMITED_RANGE
            context.colorspace = context.color_primaries = context.color_trc = BT709
            with writing(self.path):
                self._container.start_encoding()  # opens the file, so that a missing folder is noticed now
            self._unfinished = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame: (H, W, 3) uint8 sRGB, (H, W) uint8 gray or (H, W) bool mask."""
        if self._container is None:
            raise ValueError("VideoWriter.write() works inside its with block only, and not after finish()")
        rgb = as_rgb(frame)
        if rgb.shape[:2] != (self._height, self._width):
            height, width = rgb.shape[:2]
            raise ValueError(f"frame {self.frames} is {width}x{height}, the video is {self._width}x{self._height}")
        picture = self._converter.frame(rgb)
        picture.pts, picture.time_base = self.frames, 1 / self._fps
        with writing(self.path):
            self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        """Writes what is still to be written; all that the end of the `with` block then does is to name the file.

        Raises:
            DiskFullError, MediaError: as `VideoWriter`.
        """
        if self._container is None:
            raise ValueError("VideoWriter.finish() works once, and inside its with block")
        if not self.frames:
            raise MediaError(f"{self.path}: no frame was written, so there is no video. Render at least one.")
        with writing(self.path):
            self._container.mux(self._stream.encode())
        container, self._container = self._container, None
        with writing(self.path):
            container.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._container is None:  # failed, or finished already
            self._abandon()
            self._unfinished.__exit__(kind, error, trace)
            return
        with self._unfinished:
            try:
                self.finish()
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        """Closes a file that is still open; that it cannot be finished is known already."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(av.error.FFmpegError, OSError):
                container.close()


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts stored in a video file's container, without what the muxer adds by itself.

    Raises:
        MediaError: not a readable video.
    """
    with opened_video(Path(path)) as (container, _):
        return {key: text for key, text in container.metadata.items() if key not in _TECHNICAL_KEYS}
