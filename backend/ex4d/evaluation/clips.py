"""What is evaluated: clips with a new camera that is asked for, and what is known to be true of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.evaluation.depth_frames import DepthFrames
from ex4d.evaluation.errors import EvaluationError
from ex4d.media import probe, read_frames
from ex4d.media.origin import footage_sha256
from ex4d_core.cameras import CameraPath


@dataclass(frozen=True, eq=False)
class EvaluationClip:
    """Footage, and one new camera of it, as a data set has them.

    Attributes:
        name: of the clip, unique in its data set; results are looked for by it.
        source: the footage, a movie or an image sequence.
        depth: of the footage, a file or folder that `ex4d.reconstruct` reads, or files of the data set's own kind; None
            where it is not known.
        source_camera: that filmed the footage, in the same world as `camera`; None for one that stands still at the
            world's origin.
        fov_degrees: horizontal field of view of the footage, where `source_camera` does not have it.
        moving: masks of what moves in the footage, white where something does, as footage; None where unknown.
        camera: of the true view, or the one that is asked for; None where the protocol chooses it.
        truth: what that camera really saw, footage of as many frames; None where nobody filmed it.
        seen: (H, W) masks of what of the truth the footage saw, white for seen, as footage; None where they follow
            from depth, or are not known.
    """

    name: str
    source: Path
    depth: Path | DepthFrames | None = None
    source_camera: Path | None = None
    fov_degrees: float | None = None
    moving: Path | None = None
    camera: CameraPath | None = None
    truth: Path | None = None
    seen: Path | None = None

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise EvaluationError(f"a clip's name must be a relative path below its data set, not {self.name!r}")


@dataclass(frozen=True, eq=False)
class Task:
    """One result that a method owes: a clip from one camera, with one seed.

    Attributes:
        name: as results are named, such as "garden", "garden/small" or "garden/small/seed-7".
        clip: whose it is.
        camera: of every frame of the result; None where neither data set nor protocol has one.
        seed: of the method's noise.
        group: the protocol's range, "" without ranges.
    """

    name: str
    clip: EvaluationClip
    camera: CameraPath | None
    seed: int = 0
    group: str = ""


class Frames:
    """A video's frames at one size, decoded anew each time that they are read, one at a time.

    Attributes:
        path: of the footage.
        count: frames.
        width, height: pixels of what is read.
        notes: what was changed to get there, sentences for the report.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None, count: int | None = None) -> None:
        """Take the first ``count`` frames, at ``size`` (width, height).

        Pictures of another aspect are cropped in the middle, then resized by area: what all methods get alike.

        Raises:
            MediaError: the footage cannot be read.
        """
        self.path, self._found = path, probe(path)
        self.width, self.height = size or (self._found.width, self._found.height)
        self.count = self._found.frames if count is None else min(count, self._found.frames)
        self.notes = tuple(self._changes(count))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 sRGB, in order.

        Raises:
            MediaError: a frame cannot be decoded.
        """
        for frame in read_frames(self.path, count=self.count):
            yield fitted(frame, (self.width, self.height))

    def array(self) -> np.ndarray:
        """(T, H, W, 3) uint8, all frames at once."""
        return np.stack(list(self))

    @property
    def fps(self) -> Fraction:
        """Of the footage; a sequence of images has one that it does not say itself."""
        return self._found.fps

    @property
    def states_rate(self) -> bool:
        """Whether the footage says its frame rate: a movie does."""
        return self.path.is_file()

    def digest(self) -> str:
        """Of content, size and count: equal frames have an equal one."""
        return f"{footage_sha256(self.path)}-{self.width}x{self.height}-{self.count}"

    def _changes(self, count: int | None) -> Iterator[str]:
        found = self._found
        if (found.width, found.height) != (self.width, self.height):
            cropped = cropped_size((found.width, found.height), (self.width, self.height))
            crop = "" if cropped == (found.width, found.height) else f" cropped to {cropped[0]}x{cropped[1]} and"
            yield f"{found.width}x{found.height} was{crop} resized to {self.width}x{self.height}"
        if count is not None and found.frames != count:
            what = "the rest was left out" if found.frames > count else f"{count - found.frames} are missing"
            yield f"it has {found.frames} frames in place of {count}: {what}"


def horizontal_fov(camera: CameraPath) -> float:
    """Of a camera's first frame, in degrees."""
    return float(np.degrees(2 * np.arctan(camera.width / 2 / camera.intrinsics[0, 0, 0])))


def cropped_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The largest part of a picture of a size (width, height) that has the target's aspect, to whole pixels."""
    scale = min(size[0] / target[0], size[1] / target[1])
    return min(size[0], round(target[0] * scale)), min(size[1], round(target[1] * scale))


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another size (width, height): its middle of that aspect, resized."""
    if image.shape[1::-1] == size:
        return image
    from PIL import Image

    width, height = cropped_size(image.shape[1::-1], size)
    left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
    part = Image.fromarray(image[top : top + height, left : left + width])
    # Lanczos filters over the area of a pixel where it makes pictures smaller.
    return np.asarray(part.resize(size, Image.Resampling.LANCZOS))
