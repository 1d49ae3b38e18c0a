"""Depth in a data set's own files, read frame by frame into the one from which a scene is reconstructed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from ex4d.depth.validity import checked_depth, depth_along_z
from ex4d.evaluation.errors import EvaluationError
from ex4d.media import footage_sha256


@dataclass(frozen=True, eq=False)
class DepthFrames:
    """Depth of every frame, in whatever files a data set has for it.

    Attributes:
        files: of every frame, those that `read` takes.
        read: (H, W) along z from a frame's files, in the unit of the cameras; values that are not finite or not above
            0 are unknown. A function of a module, or a partial of one: evaluations over several GPUs send it to others.
    """

    files: tuple[tuple[Path, ...], ...]
    read: Callable[..., np.ndarray]

    def digest(self) -> str:
        """Of the files' contents.

        Raises:
            MediaError: one cannot be read.
        """
        hashes = [footage_sha256(file) for frame in self.files for file in frame]
        return sha256("".join(hashes).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write all of it as an .npy (T, H, W) float32; unknown depth becomes the farthest of its frame.

        Raises:
            EvaluationError: a file cannot be read, or a frame has another size.
            DepthError: a frame without any depth.
        """
        array: np.memmap | None = None
        for index, files in enumerate(self.files):
            try:
                depth = depth_along_z(self.read(*files), 1.0, inverse=False)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise EvaluationError(f"{files[0]}: no readable depth ({error!r}). Fetch the file again.") from error
            if array is None:
                array = open_memmap(path, "w+", np.float32, (len(self.files), *depth.shape))
            if depth.shape != array.shape[1:]:
                raise EvaluationError(
                    f"{files[0]}: depth of {depth.shape[::-1]} pixels, but {self.files[0][0].name} has "
                    f"{array.shape[:0:-1]}. Fetch the files again."
                )
            array[index] = checked_depth(depth, str(files[0]), "far")
