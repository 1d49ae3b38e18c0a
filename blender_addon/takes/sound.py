"""Writes what is heard during a take: the footage's sound under its frames, at the speed at which they are shown."""

from __future__ import annotations

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
    partial = path.with_suffix(".partial.wav")
    try:
        heard = aud.Sound.file(str(package.path("footage"))).limit(start, start + len(request.camera) / footage_fps)
        heard.pitch((fps or footage_fps) / footage_fps).write(
            str(partial), _RATE, _STEREO, aud.FORMAT_S16, aud.CONTAINER_WAV, aud.CODEC_PCM, 0, _BUFFER_FRAMES
        )
    except aud.error:  # no audio stream in the footage
        partial.unlink(missing_ok=True)
        return None
    put_in_place(partial, path)
    return path
