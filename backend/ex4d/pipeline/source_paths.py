"""`SourcePaths`: where on this machine lies what a scene is reconstructed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourcePaths:
    """What a scene is reconstructed from, on this machine.

    Attributes:
        footage: a video, or a folder of images.
        depth: an .npz or .npy, or a folder or pattern of EXR or 16-bit PNG files; None where it is estimated.
        camera: the file or folder of the moving camera that filmed it; None for the one that the depth comes with,
            or else for a camera that stood still.
        mask: of what moves in the footage, a video or a folder of images, white where something does; None for none.
        footage_label, camera_label, mask_label: their names in the scene's provenance; "" takes the paths' names.
    """

    footage: Path
    depth: Path | None = None
    camera: Path | None = None
    mask: Path | None = None
    footage_label: str = ""
    camera_label: str = ""
    mask_label: str = ""
