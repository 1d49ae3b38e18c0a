"""Reads the sound of a video, aligned with its first frame, and encodes it beside the frames of another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import OutputContainer
from av.packet import Packet

from ex4d.media.media_errors import MediaError
from ex4d.media.scan import open_video

SAMPLE_RATE = 48_000
_CHANNELS = 2
_BIT_RATE = 192_000
# Samples of an AAC frame.
_FRAME_SAMPLES = 1024


@dataclass(frozen=True)
class Sound:
    """What is heard during a movie.

    Attributes:
        path: of the video whose sound it is.
        start: seconds of that video before it begins.
    """

    path: Path
    start: Fraction = Fraction(0)


def sound_of(path: Path, start: Fraction = Fraction(0)) -> Sound | None:
    """The sound of a video from a second on; None for image sequences, and where no audio can be decoded."""
    try:
        with open_video(path) as (container, _):
            heard = bool(container.streams.audio) and next(container.decode(audio=0), None) is not None
    except (MediaError, av.error.FFmpegError):
        return None
    return Sound(path, start) if heard else None


def read_sound(sound: Sound) -> Iterator[np.ndarray]:
    """The samples of a sound from its start on, (2, N) float32 at `SAMPLE_RATE`, in pieces.

    It is silent where the audio stream starts later than the picture. Ends early where the file is damaged.
    """
    with open_video(sound.path) as (container, video):
        begins = Fraction(video.start_time or 0) * (video.time_base or 0) + sound.start
        resampler = AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
        wanted = None  # samples to skip; below 0 samples of silence
        try:
            for frame in container.decode(audio=0):
                if wanted is None:
                    at = Fraction(frame.pts or 0) * (frame.time_base or 0)
                    wanted = round((begins - at) * SAMPLE_RATE)
                    while wanted < 0:
                        yield np.zeros((_CHANNELS, min(-wanted, SAMPLE_RATE)), np.float32)
                        wanted = min(wanted + SAMPLE_RATE, 0)
                for resampled in resampler.resample(frame):
                    samples = resampled.to_ndarray()
                    skipped = min(wanted, samples.shape[1])
                    wanted -= skipped
                    if skipped < samples.shape[1]:
                        yield samples[:, skipped:]
        except av.error.FFmpegError:
            return


class SoundEncoder:
    """Encodes a sound as AAC into a container that also gets frames, no further than these."""

    def __init__(self, container: OutputContainer, sound: Sound) -> None:
        """Add the audio stream; the container's encoding has not started."""
        self._stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        self._stream.bit_rate = _BIT_RATE
        self._pieces = read_sound(sound)
        self._held = np.zeros((_CHANNELS, 0), np.float32)
        self._encoded = 0

    def until(self, seconds: Fraction, *, final: bool = False) -> Iterator[Packet]:
        """Encode up to a time.

        Args:
            seconds: since the start of the movie.
            final: the movie ends then, so that what is left is encoded, too.
        """
        end = round(seconds * SAMPLE_RATE)
        while self._encoded < end:
            size = min(_FRAME_SAMPLES, end - self._encoded)
            if size < _FRAME_SAMPLES and not final:
                return
            while self._held.shape[1] < size and (piece := next(self._pieces, None)) is not None:
                self._held = np.concatenate([self._held, piece], axis=1)
            samples, self._held = self._held[:, :size], self._held[:, size:]
            if not samples.shape[1]:
                break  # the sound ends before the picture
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._encoded, Fraction(1, SAMPLE_RATE)
            self._encoded += samples.shape[1]
            yield from self._stream.encode(frame)
        if final:
            yield from self._stream.encode()
