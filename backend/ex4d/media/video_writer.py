"""Writes H.264 .mp4 files that editors and Blender read with the right colours, complete or not at all."""

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
from av.container import OutputContainer

from ex4d.media.media_errors import MediaError, atomic_write, translate_write_errors
from ex4d.media.pixels import BT709, LIMITED_RANGE, YuvConverter, as_rgb
from ex4d.media.scan import open_video
from ex4d.media.sound import Sound, SoundEncoder
from ex4d.media.stereo_boxes import StereoKind, mark_as_stereo

_TECHNICAL_KEYS = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # written by the muxer itself


# x264's macroblock tree reads memory that it has not written: in up to 5 % of runs the same frames gave other bytes.
# Without it, the rest gives the same PSNR for 15 to 20 % more bytes; its defaults took 2.4 times as many where nothing
# moves, and pictures went on changing there.
_SAME_BYTES = "mbtree=0:qcomp=0.9:ipratio=2"
# Of larger frames x264 holds fewer: by default some 200 bytes a pixel for look-ahead and threads, 13 GB at 8000x8000.
LARGE_PIXELS = 4096 * 2304
_FEW_FRAMES_HELD = "rc-lookahead=1:sync-lookahead=0:sliced-threads=1"


# Pixels whose sides differ by less are taken as square: cameras that were solved or estimated have such focal lengths.
SQUARE = 0.02
# Ratios in use, such as 16:15 of PAL and 40:33 of wide NTSC, are of small numbers.
_LARGEST_ASPECT = 200


class VideoWriter:
    """Writes frames to an .mp4 (H.264, BT.709, limited range, index in front).

    Even sizes are stored as yuv420p. Odd sizes cannot be, and are stored as yuv444p, which Blender and editors read
    but some browsers and phones do not.

    The file appears at `path` when the `with` block ends without error; after any error nothing is left of it. Until
    then it grows as `path` + ".partial". Where several files must appear together or not at all, `finish` each at the
    end of the block that they share.

        with VideoWriter("take.mp4", 512, 512, Fraction(30), metadata={"engine": "preview"}) as video:
            for frame in frames:
                video.write(frame)

    Raises:
        MediaError: the file cannot be written, or no frame was.
        ValueError: impossible size, rate or frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: Fraction | int,
        *,
        pixel_aspect: float = 1.0,
        crf: int = 16,
        metadata: Mapping[str, str] | None = None,
        sound: Sound | None = None,
        stereo: StereoKind | None = None,
    ) -> None:
        """Prepare a file.

        Args:
            path: the file; an existing one is replaced.
            width: pixels.
            height: pixels.
            fps: frames per second, kept exactly.
            pixel_aspect: width of a pixel by its height, which players stretch the picture by; none within `SQUARE`
                of 1.
            crf: x264's constant rate factor, 0 (lossless) to 51; 16 is visually lossless for later repainting.
            metadata: texts by key, stored in the container, readable by `read_metadata`.
            sound: what is heard, stored as AAC up to the end of the frames; of a video with sound.
            stereo: how frames have the images of two eyes, which the file then says.
        """
        if width < 1 or height < 1 or fps <= 0:
            raise ValueError(f"invalid video of {width}x{height} pixels at {fps} fps: expected values above 0")
        self.path = Path(path)
        self.frames = 0
        self._width, self._height, self._fps, self._crf = width, height, Fraction(fps), crf
        self._pixel_aspect = Fraction(pixel_aspect).limit_denominator(_LARGEST_ASPECT)
        self._is_square = abs(pixel_aspect - 1) < SQUARE
        self._metadata, self._sound = dict(metadata or {}), sound
        self._stereo: StereoKind | None = stereo
        self._pixel_format = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
        self._converter = YuvConverter(self._pixel_format)
        self._container: OutputContainer | None = None

    def __enter__(self) -> VideoWriter:
        """Create the partial file."""
        with ExitStack() as stack:
            partial = self._partial = stack.enter_context(atomic_write(self.path))
            with translate_write_errors(self.path):
                container = self._container = av.open(
                    f"file:{partial}", "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
                )
            container.metadata.update(self._metadata)
            keyframe_interval = max(1, round(self._fps))  # one a second, so that scrubbing in an editor is quick
            # Measured on a 512x512 clip: "veryfast" takes half of the time of "medium" for the same size and 0.5 dB
            # less; "fastdecode" without B-frames decodes, scrubs and opens in half of the time for 28 % more bytes.
            params = [_SAME_BYTES, *([_FEW_FRAMES_HELD] if self._width * self._height > LARGE_PIXELS else [])]
            self._stream = container.add_stream(
                "libx264",
                rate=self._fps,
                options={
                    "crf": str(self._crf),
                    "preset": "veryfast",
                    "tune": "fastdecode",
                    "bf": "0",
                    "g": str(keyframe_interval),
                    "x264-params": ":".join(params),
                },
            )
            self._stream.width, self._stream.height = self._width, self._height
            self._stream.pix_fmt = self._pixel_format
            context = self._stream.codec_context
            if not self._is_square:
                context.sample_aspect_ratio = self._pixel_aspect
            context.color_range = LIMITED_RANGE
            context.colorspace = context.color_primaries = context.color_trc = BT709
            self._heard = SoundEncoder(container, self._sound) if self._sound is not None else None
            with translate_write_errors(self.path):
                container.start_encoding()  # opens the file, so that a missing folder is noticed now
            self._unfinished = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame: (H, W, 3) uint8 sRGB, (H, W) uint8 gray or (H, W) bool mask."""
        container = self._require_open()
        rgb = as_rgb(frame)
        if rgb.shape[:2] != (self._height, self._width):
            height, width = rgb.shape[:2]
            raise ValueError(f"frame {self.frames} is {width}x{height}: the video is {self._width}x{self._height}")
        image = self._converter.frame(rgb)
        image.pts, image.time_base = self.frames, 1 / self._fps
        with translate_write_errors(self.path):
            container.mux(self._stream.encode(image))
        self.frames += 1
        self._mux_sound()

    def _require_open(self) -> OutputContainer:
        if self._container is None:
            raise ValueError("VideoWriter.write() works only inside the with block and before finish()")
        return self._container

    def finish(self) -> None:
        """Complete the partial file; the end of the `with` block then only renames it.

        Raises:
            MediaError: as `VideoWriter`.
        """
        if self._container is None:
            raise ValueError("VideoWriter.finish() works only once, inside the with block")
        if not self.frames:
            raise MediaError(f"{self.path}: no frame was written. Render at least one.")
        with translate_write_errors(self.path):
            self._container.mux(self._stream.encode())
        self._mux_sound(final=True)
        container, self._container = self._container, None
        with translate_write_errors(self.path):
            container.close()
            if self._stereo is not None:
                mark_as_stereo(Path(self._partial), self._stereo)

    def _mux_sound(self, final: bool = False) -> None:
        """Append the sound under the frames that have been written, so that a player finds both near each other."""
        if self._heard is None or self._container is None:
            return
        for packet in self._heard.until(self.frames / self._fps, final=final):
            with translate_write_errors(self.path):
                self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete and rename the file, or remove it after an error."""
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
        """Close a file that is still open, after an error."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(av.error.FFmpegError, OSError):
                container.close()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts stored in a video file's container, except those of the muxer itself.

    Raises:
        MediaError: not a readable video.
    """
    with open_video(Path(path)) as (container, _):
        return {key: text for key, text in container.metadata.items() if key not in _TECHNICAL_KEYS}
