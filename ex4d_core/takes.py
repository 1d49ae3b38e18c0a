"""A take from this side of the wire: upload what the backend lacks, submit the shot, collect frames and movies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ex4d_core.client import Conversation
from ex4d_core.jobs import JobConversation
from ex4d_core.messages import JobEvent, JobStatus
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.transfers import scene_blobs

# Files that a finished take brings along; a name from the wire is only ever compared with these.
TAKE_FILES = ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", "request.json")

# The newest estimate of a take that is still being denoised.
ESTIMATE_FILE = "estimate.png"


@dataclass
class Take(JobConversation):
    """One take: a shot request and everything that has arrived for it so far.

    Attributes:
        request: what was asked for.
        folder: where frames (``frame_00000.png``) and movies are put.
        frames: files of the frames that have arrived, by index.
        estimate: file of the newest small picture of what is coming, None before the first.
        estimates: how many of them have arrived.
        on_frame: called once for each frame when its file is complete.
    """

    request: ShotRequest
    folder: Path
    frames: dict[int, Path] = field(default_factory=dict)
    estimate: Path | None = None
    estimates: int = 0
    on_frame: Callable[[int, Path], None] | None = None

    def conversation(self, scene: Scene | None) -> Conversation[JobStatus]:
        """From upload to the last frame; returns the job's final status.

        Args:
            scene: the opened scene package; None when the job was submitted earlier.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.job:
            yield from self._submit(self.request.to_wire(), scene_blobs(scene))
        return (yield from self._collect())

    def place_of(self, event: JobEvent) -> Path | None:
        if event.kind == "frame" and 0 <= event.index < len(self.request.camera):
            return self.folder / frame_file_name(event.index)
        if event.kind == "estimate":
            return self.folder / ESTIMATE_FILE
        if event.kind == "file" and event.name in TAKE_FILES:
            return self.folder / event.name
        return None

    def arrived(self, event: JobEvent, path: Path) -> None:
        if event.kind == "file":
            super().arrived(event, path)
            return
        if event.kind == "estimate":
            self.estimate, self.estimates = path, self.estimates + 1
            return
        is_new = event.index not in self.frames
        self.frames[event.index] = path
        if self.on_frame and is_new:
            self.on_frame(event.index, path)


def frame_file_name(index: int) -> str:
    """File name of a take's frame, counted from 0."""
    return f"frame_{index:05d}.png"
