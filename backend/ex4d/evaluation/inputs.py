"""What the measures of one result read: its frames, and whatever is known of the clip."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ex4d.evaluation.clips import Frames, Task
from ex4d.evaluation.networks import Networks


class NotMeasuredError(Exception):
    """One metric of one result cannot be had; the text is the report's reason."""


@dataclass(frozen=True, eq=False)
class ResultInputs:
    """One result beside what is known; all at the protocol's size and length.

    Attributes:
        task: what was asked for.
        result: the method's frames.
        source: the footage's.
        truth: the true view's; None where there is none.
        seen: (T, H, W) bool, whether the footage saw what the asked-for camera sees there; None where it is unknown.
        render: (T, H, W, 3) uint8, the footage's own pixels there; None where depth is unknown.
        device: for networks and pixels.
        networks: loaded when they are asked for.
        rendered: (T, H, W) bool, where `render` has pixels; None for where `seen`.
        masks: the method's own, white where it calls the footage seen; None where it has none.
    """

    task: Task
    result: Frames
    source: Frames
    truth: Frames | None
    seen: np.ndarray | None
    render: np.ndarray | None
    device: torch.device
    networks: Networks
    rendered: np.ndarray | None = None
    masks: Frames | None = None

    @cached_property
    def identity(self) -> tuple[str | None, ...]:
        """Hashes of all that figures depend on: they are found once for all measures."""
        videos = self.result, self.source, self.truth, self.masks
        camera = self.task.camera
        arrays = (self.seen, self.render, self.rendered)
        arrays += (None, None) if camera is None else (camera.world_to_camera, camera.intrinsics)
        hashes = (None if one is None else hashlib.sha256(one.tobytes()).hexdigest() for one in arrays)
        return (*(None if one is None else one.digest() for one in videos), *hashes)

    def true_view(self) -> Frames:
        """The truth.

        Raises:
            NotMeasuredError: there is none.
        """
        if self.truth is None:
            raise NotMeasuredError("the data set has no true view of this clip")
        return self.truth


def as_tensor(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """(1, 3, H, W) float32 in 0 to 1, of an (H, W, 3) uint8 image."""
    return torch.tensor(image, device=device).permute(2, 0, 1)[None].float() / 255
