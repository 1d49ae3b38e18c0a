"""Writes what is heard during a take: the footage's sound under its frames, at the speed at which they are shown."""

from __future__ import annotations

import wave
from pathlib import Path

from ex4d_core.durable_files import put_in_place
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest

SOUND_FILE = "sound.wav"
_RATE, _STEREO, _BUFFER_FRAMES = 48000, 2, 4096


def write_take_sound(package: Scene, request: ShotRequest, fps: float, folder: Path) -> Path | None:
    """Write a take's sound into its folder, if it is not there yet.

    Args:
        package: the scene whose footage the take shows.
        request: of the take.
        fps: rate at which the take's frames follow each other in Blender; 0 for that of the footage.
        folder: of the take.

    Returns:
        The file; None if the footage has no sound, or this Blender was built without.
    """
    path = folder / SOUND_FILE
    if path.is_file():
        return path
    try:
        import aud  # Blender's own; builds without sound lack it
    except ModuleNotFoundError:
        return None
    footage_fps = float(package.manifest.fps)
    start = request.first_frame / footage_fps
    seconds, speed = len(request.camera) / footage_fps, (fps or footage_fps) / footage_fps
    partial = path.with_suffix(".partial.wav")
    try:
        # `Sound.data` would end Blender where there is no sound; writing a file raises an error.
        aud.Sound.file(str(package.path("footage"))).limit(start, start + seconds).write(
            str(partial), _RATE, _STEREO, aud.FORMAT_S16, aud.CONTAINER_WAV, aud.CODEC_PCM, 0, _BUFFER_FRAMES
        )
        _cut_and_retime(partial, round(seconds * _RATE), speed)
    except (aud.error, wave.Error, EOFError):
        partial.unlink(missing_ok=True)
        return None
    put_in_place(partial, path)
    return path


def _cut_and_retime(path: Path, samples: int, speed: float) -> None:
    """Take what Audaspace has added off the end of a .wav, and state the rate at which it has another speed."""
    with wave.open(str(path)) as file:
        channels, width = file.getnchannels(), file.getsampwidth()
        data = file.readframes(samples)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, round(_RATE * speed), 0, "NONE", ""))
        file.writeframes(data)
