"""`RememberedShares`: how much of what a frame does not see the clip knows, from small pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.pipeline.clip_memory import ClipMemory
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage

# Pixels of the longer side, of footage and new picture. A share needs no details, and a shot has many frames.
_SIDE = 64
# Frames that are drawn at once, with all key frames: some hundred small images, which fill a GPU.
_FRAMES = 64


class RememberedShares:
    """Keeps small key frames of a scene."""

    def __init__(
        self, scene: PlacedFootage, settings: RenderSettings, device: str, machine: MachineSettings | None
    ) -> None:
        """Read nothing yet; see `ClipMemory`."""
        step = -(-max(scene.manifest.width, scene.manifest.height) // _SIDE)
        self._memory = ClipMemory(scene, settings, device=device, machine=machine, reduced=step)

    def of(self, camera: CameraPath, shown: Sequence[int]) -> np.ndarray:
        """(T,) float64, the share, 0 to 1, of the unseen pixels of each frame that the clip knows.

        Args:
            camera: of any size.
            shown: the footage frame that each frame shows.
        """
        scale = min(1.0, _SIDE / max(camera.size))
        small = camera.resized(*(max(2, round(side * scale)) for side in camera.size))
        starts = range(0, len(shown), _FRAMES)
        return np.concatenate(
            [self._memory.shares(small.frames(k, k + _FRAMES), shown[k : k + _FRAMES]) for k in starts]
        )
