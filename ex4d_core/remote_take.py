"""A take as a `RemoteJob`: sends a scene and a shot, and collects frames, estimates and movies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ex4d_core.conversations import Conversation, UnexpectedReply
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent
from ex4d_core.remote_job import RemoteJob, Submission
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.sizes import size_text
from ex4d_core.take_files import ALL_TAKE_FILES, ESTIMATE_FILE, frame_file_name
from ex4d_core.transfers import scene_blobs

# More than a file of a take can have: of a pixel, twice what it has before compression in 8 bits; of a frame, its
# camera in words; and what a file has besides.
_PIXEL_BYTES = 8
# And in half floats, with depth, positions and motion vectors as floats.
_DEEP_PIXEL_BYTES = 64
_FRAME_BYTES = 4000
_LEAST_BYTES = 1024 * 1024


@dataclass
class RemoteTake(RemoteJob):
    """A shot request and everything that has arrived for it so far.

    Attributes:
        request: what was asked for.
        scene: the opened scene package; None when the job was submitted earlier.
        frames: files of the frames that have arrived, by index.
        estimate: file of the newest estimate, None before the first.
        estimates: how many of them have arrived.
    """

    request: ShotRequest
    scene: Scene | None = None
    frames: dict[int, Path] = field(default_factory=dict)
    estimate: Path | None = field(default=None, init=False)
    estimates: int = field(default=0, init=False)

    def prepare(self) -> Conversation[Submission]:
        """The shot request, and the scene's files."""
        yield from ()
        if self.scene is None:
            raise RequestError(f"take {self.request.label!r} cannot be sent without its scene; open the scene first")
        return self.request.to_wire(), scene_blobs(self.scene, deep=self.request.draws_deep)

    def path_for(self, event: JobEvent) -> Path | None:
        """Frames of this shot, the newest estimate, and the take's own files, also those of more than 8 bits.

        Raises:
            UnexpectedReply: it is larger than anything of such a shot.
        """
        path = self._path_for(event)
        frames = len(self.request.camera) if event.kind == "file" else 1
        width, height = self.request.frame_size
        each = _DEEP_PIXEL_BYTES if event.name in self.request.deep_files else _PIXEL_BYTES
        most = _LEAST_BYTES + frames * (_FRAME_BYTES + each * width * height)
        if path is not None and event.size > most:
            raise UnexpectedReply(
                f"the backend announces {path.name} with {size_text(event.size)}, and {frames} frames of "
                f"{width}x{height} have at most {size_text(most)}; is it EX-4D, and of this version?"
            )
        return path

    def _path_for(self, event: JobEvent) -> Path | None:
        if event.kind == "frame" and 0 <= event.index < len(self.request.camera):
            return self.folder / frame_file_name(event.index)
        if event.kind == "estimate":
            return self.folder / ESTIMATE_FILE
        if event.kind == "file" and event.name in (*ALL_TAKE_FILES, *self.request.deep_files):
            return self.folder / event.name
        return None

    def arrived(self, event: JobEvent, path: Path) -> None:
        """Note a frame, an estimate or a file."""
        if event.kind == "file":
            super().arrived(event, path)
        elif event.kind == "estimate":
            self.estimate, self.estimates = path, self.estimates + 1
        else:
            self.frames[event.index] = path
