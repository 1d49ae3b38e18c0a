"""Passes as a `RemoteJob`: sends a scene with its half floats and a shot, and collects the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ex4d_core.conversations import Conversation, UnexpectedReply
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent
from ex4d_core.passes import PassesRequest
from ex4d_core.remote_job import RemoteJob, Submission
from ex4d_core.scene import Scene
from ex4d_core.sizes import size_text
from ex4d_core.take_files import REQUEST_FILE
from ex4d_core.transfers import scene_blobs

# More than an image can have: of a pixel, twice what all channels have before compression; and what it says besides.
_PIXEL_BYTES = 128
_LEAST_BYTES = 1024 * 1024


@dataclass
class RemotePasses(RemoteJob):
    """A request for passes, and the images that have arrived so far, in ``files``.

    Attributes:
        request: what was asked for.
        scene: the opened scene package; None when the job was submitted earlier.
    """

    request: PassesRequest
    scene: Scene | None = None

    def prepare(self) -> Conversation[Submission]:
        """The request, and the scene's files with its half floats."""
        yield from ()
        if self.scene is None:
            text = f"passes of {self.request.label!r} cannot be sent without their scene; open the scene first"
            raise RequestError(text)
        return self.request.to_wire(), scene_blobs(self.scene, deep=True)

    def path_for(self, event: JobEvent) -> Path | None:
        """The images of this request, and how the backend read it; a name from the wire is only compared with theirs.

        Raises:
            UnexpectedReply: one is larger than anything of such a shot.
        """
        if event.kind != "file" or event.name not in (REQUEST_FILE, *self.request.files):
            return None
        width, height = self.request.shot.frame_size
        most = _LEAST_BYTES + _PIXEL_BYTES * width * height
        if event.size > most:
            raise UnexpectedReply(
                f"the backend announces {event.name} with {size_text(event.size)}, and an image of {width}x{height} "
                f"has at most {size_text(most)}; is it EX-4D, and of this version?"
            )
        return self.folder / event.name
