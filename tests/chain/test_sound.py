"""The sound of footage stays with its frames: in the scene's movie, and in the movie of a take."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ex4d.depth import DepthFiles
from ex4d.media import VideoWriter, probe, sound_of
from ex4d.media.sound import SAMPLE_RATE, read_sound
from ex4d.pipeline.scene_building import build_scene
from ex4d.pipeline.take import generate_take
from ex4d_core.shot import ShotRequest

FPS = Fraction(24)
FRAMES = 48


def beep(at: float, seconds: float) -> np.ndarray:
    """(2, N) float32: silence, but for a tone of a tenth of a second."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.where((time >= at) & (time < at + 0.1), 0.5 * np.sin(2 * np.pi * 880 * time), 0.0)
    return np.stack([tone, tone]).astype(np.float32)


def write_footage(path: Path, sound: np.ndarray, sound_starts: float = 0.0) -> Path:
    """A gray clip of two seconds with a sound, whose stream may start later than the picture."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 4 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, 1 / FPS
            container.mux(video.encode(frame))
        for first in range(0, sound.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[:, first : first + 1024]), "fltp", "stereo")
            piece.sample_rate, piece.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            piece.pts = first + round(sound_starts * SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode())
        container.mux(video.encode())
    return path


def heard_at(path: Path) -> float:
    """Second at which the tone of a video begins."""
    sound = sound_of(path)
    assert sound is not None
    samples = np.concatenate(list(read_sound(sound)), axis=1)
    return float(np.flatnonzero(np.abs(samples[0]) > 0.1)[0]) / SAMPLE_RATE


@pytest.mark.parametrize("sound_starts", [0.0, 0.5])
def test_a_movie_keeps_the_sound_where_it_was(tmp_path, sound_starts):
    footage = write_footage(tmp_path / "in.mp4", beep(1.0 - sound_starts, 2.0 - sound_starts), sound_starts)
    with VideoWriter(tmp_path / "out.mp4", 16, 16, FPS, sound=sound_of(footage)) as movie:
        for index in range(FRAMES):
            movie.write(np.full((16, 16, 3), index, np.uint8))
    assert heard_at(footage) == pytest.approx(1.0, abs=0.03)
    assert heard_at(tmp_path / "out.mp4") == pytest.approx(1.0, abs=0.03)
    assert probe(tmp_path / "out.mp4").frames == FRAMES


def test_a_part_of_the_footage_has_that_part_of_its_sound(tmp_path):
    footage = write_footage(tmp_path / "in.mp4", beep(1.0, 2.0))
    with VideoWriter(tmp_path / "out.mp4", 16, 16, FPS, sound=sound_of(footage, Fraction(18, 24))) as movie:
        for index in range(12):
            movie.write(np.full((16, 16, 3), index, np.uint8))
    assert heard_at(tmp_path / "out.mp4") == pytest.approx(0.25, abs=0.03)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.audio[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(0.5, abs=0.05), "no longer than the frames"


def test_footage_without_sound_gives_a_movie_without(tmp_path):
    with VideoWriter(tmp_path / "silent.mp4", 16, 16, FPS) as movie:
        movie.write(np.zeros((16, 16, 3), np.uint8))
    assert sound_of(tmp_path / "silent.mp4") is None
    assert sound_of(tmp_path) is None, "a folder of images"


class Folder:
    """A sink that keeps files and leaves frames where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def frame(self, index: int, path: Path) -> None: ...

    def estimate(self, number: int, path: Path) -> None: ...

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        path.rename(self.folder / name)


def test_a_scene_and_its_takes_keep_the_sound_of_the_footage(tmp_path):
    footage = probe(write_footage(tmp_path / "clip.mp4", beep(1.0, 2.0)))
    np.save(tmp_path / "depth.npy", np.full((FRAMES, 16, 16), 2.0, np.float32))
    depth = DepthFiles(tmp_path / "depth.npy").estimate(footage)
    lens = np.array([[16, 0, 8], [0, 16, 8], [0, 0, 1.0]])
    scene = build_scene(footage, depth, lens, tmp_path / "scene", name="clip")
    request = ShotRequest(scene=scene.digest, camera=scene.source_camera().frames(18, 36), first_frame=18)
    (tmp_path / "work").mkdir()
    generate_take(scene, request, device="cpu", sink=Folder(tmp_path), work_folder=tmp_path / "work")
    assert heard_at(scene.path("footage")) == pytest.approx(1.0, abs=0.03)
    assert heard_at(tmp_path / "take.mp4") == pytest.approx(0.25, abs=0.03)
    assert sound_of(tmp_path / "mask.mp4") is None
