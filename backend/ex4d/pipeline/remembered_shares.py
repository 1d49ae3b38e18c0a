"""`RememberedShares`: how much of what a frame does not see the clip knows, from small pictures."""

from __future__ import annotations

from ex4d.machine import MachineSettings
from ex4d.pipeline.clip_memory import ClipMemory
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage

# Pixels of the longer side, of footage and new picture. A share needs no details, and a shot has many frames.
_SIDE = 128


class RememberedShares:
    """Keeps small key frames of a scene."""

    def __init__(
        self, scene: PlacedFootage, settings: RenderSettings, device: str, machine: MachineSettings | None
    ) -> None:
        """Read nothing yet; see `ClipMemory`."""
        step = -(-max(scene.manifest.width, scene.manifest.height) // _SIDE)
        self._memory = ClipMemory(scene, settings, device=device, machine=machine, reduced=step)

    def of(self, camera: CameraPath, shown: int) -> float:
        """The share, 0 to 1, of the unseen pixels of one frame that the clip knows.

        Args:
            camera: of one frame, of any size.
            shown: the footage frame that it shows.
        """
        scale = min(1.0, _SIDE / max(camera.size))
        small = camera.resized(*(max(2, round(side * scale)) for side in camera.size))
        rendered = self._memory.render(small, [shown])
        assert rendered.remembered is not None, "rendered with memory"
        unseen = int((~rendered.mask).sum())
        return int(rendered.remembered.sum()) / unseen if unseen else 0.0
