"""`ShotCameras`: runs a model that finds cameras out over each shot of the footage, and keeps one path for all of it.

Cameras of different shots have nothing to do with each other, so each shot begins in a world of its own, which is the
scene's: there its first camera is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from ex4d.depth.source_camera import STILL_NOTE, stands_still
from ex4d_core.cameras import CameraPath

if TYPE_CHECKING:
    from ex4d.depth.estimation import ClipModel, Step


class ShotCameras:
    """The cameras of all shots.

    Args:
        model: of any kind; one that finds no cameras out sees all frames as one shot.
        width, height: of the footage.
    """

    def __init__(self, model: ClipModel, width: int, height: int) -> None:
        self._model, self._size = model, (width, height)
        self._shots: list[CameraPath] = []
        self._still = 0

    def predict(self, frames: Iterable[torch.Tensor], shot: Callable[[], int], step: Step) -> Iterator[np.ndarray]:
        """As `ClipModel.predict`.

        Args:
            frames: of the footage.
            shot: the number of the shot that the frame just taken belongs to.
            step: as for the model.
        """
        if not self._model.model.poses:
            yield from self._model.predict(frames, step)
            return
        for _, shots_frames in groupby(frames, key=lambda _: shot()):
            nearest_quarter = 0.0
            for index, raw in enumerate(self._model.predict(shots_frames, step)):
                if index == 0:
                    nearest_quarter = float(np.quantile(raw, 0.75))
                yield raw
            if (camera := self._model.cameras(*self._size)) is not None:
                self._add(camera, nearest_quarter)

    def _add(self, camera: CameraPath, disparity: float) -> None:
        if disparity <= 0 or stands_still(camera, 1 / disparity):
            self._still += 1
            still = np.broadcast_to(np.eye(4), camera.world_to_camera.shape)
            camera = CameraPath(still, camera.intrinsics, camera.width, camera.height)
        self._shots.append(camera)

    @property
    def intrinsics(self) -> np.ndarray | None:
        """(T, 3, 3), or None where the model has no cameras."""
        return np.concatenate([shot.intrinsics for shot in self._shots]) if self._shots else None

    def path(self, unit: float) -> CameraPath | None:
        """The cameras of all frames; None without cameras, or if no camera moves.

        Args:
            unit: scene units of one unit of 1 / disparity.
        """
        if self._still == len(self._shots):
            return None
        matrices = np.concatenate([shot.world_to_camera for shot in self._shots])
        matrices[:, :3, 3] *= unit
        intrinsics = np.concatenate([shot.intrinsics for shot in self._shots])
        return CameraPath(matrices, intrinsics, *self._size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the artist should know."""
        return (STILL_NOTE,) if self._shots and self._still == len(self._shots) else ()
