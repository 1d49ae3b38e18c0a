"""Messages about views and coverage, which the service computes at once, without a job: a part of `messages`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from ex4d_core.errors import RequestError
from ex4d_core.message_base import LONG_HEADER_BYTES, Message, Reply
from ex4d_core.schema import Codec, Range

# One image of a view, as JPEG: 2048x2048 of noise has about 5 MB.
MAX_IMAGE_BYTES = 16 * 1024 * 1024


def _floats_from_bytes(data: object) -> list[float]:
    if not isinstance(data, bytes) or len(data) % 8:
        raise RequestError(f"a list of numbers must be bytes of float64, not {type(data).__name__}")
    return np.frombuffer(data, "<f8").tolist()


# Lists of floats may be as long as a clip, so they travel as little-endian float64: the lists of a header are short.
Floats = Annotated[list[float], Codec(None, lambda values: np.asarray(values, "<f8").tobytes(), _floats_from_bytes)]
_Side = Annotated[int, Range(1, 8192)]


@dataclass(frozen=True)
class GetView(Message):
    """Asks what a camera sees of one frame, at once. The newest request wins.

    While one view is being rendered, a client's later requests wait; of those only the newest is answered with a
    `View`, the others with an `Error` of code "superseded". The scene must have been uploaded.

    Attributes:
        request: a `ShotRequest` on the wire, with a camera of one frame.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class View(Reply):
    """One frame as the preview engine would show it.

    Attributes:
        seen: share of the image that the footage saw.
        payload: the image as JPEG.
        remembered: share that only other frames of the clip saw, and that the image shows.
    """

    max_payload: ClassVar[int] = MAX_IMAGE_BYTES
    width: _Side
    height: _Side
    seen: Annotated[float, Range(0, 1)]
    remembered: Annotated[float, Range(0, 1)] = 0.0
    payload: bytes = b""


@dataclass(frozen=True)
class GetCoverage(Message):
    """Asks how much of each frame of a shot the footage saw. The newest request wins, as with `GetView`.

    Attributes:
        request: a `ShotRequest` on the wire.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class Coverage(Reply):
    """The coverage of each frame of the shot, at a reduced resolution.

    Attributes:
        seen: share of the frame that the footage saw, 0 to 1.
        view_angle: degrees between the directions from which the source camera and the new one look at the subject.
        remembered: share that only other frames of the clip saw, where the shot shows it; empty from older services.
    """

    max_header: ClassVar[int] = LONG_HEADER_BYTES
    seen: Floats
    view_angle: Floats
    remembered: Floats = field(default_factory=list)
