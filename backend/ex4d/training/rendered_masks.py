"""Rendering masks: what a clip's own DW-Mesh leaves unseen along a drawn camera move.

The mesh is watertight and its masks are not cleaned, as the engine `wan` renders takes. The mask of a new camera is
laid over the source frames pixel by pixel, so that masked video and target are a pair without a second camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer
from ex4d.raster.batches import BATCH_PIXELS, CPU_BATCH_PIXELS
from ex4d.raster.frames import RenderedBatch
from ex4d.training.mask_morphology import cleaned
from ex4d.training.mask_settings import MoveSettings
from ex4d.training.sampled_moves import SampledMove, draw_move, turned_degrees
from ex4d.training.samples import MaskKind
from ex4d_core.cameras import CameraPath
from ex4d_core.pivots import middle_distance

# A move is tried on about this many pixels of this many frames: enough to know its unseen share within a few per cent.
_TRIAL_PIXELS, _TRIAL_FRAMES = 128 * 128, 7
# Halvings of the strength while an unseen share is searched for.
_HALVINGS = 5


@dataclass(frozen=True, eq=False)
class SimulatedMask:
    """A mask that was simulated for a clip.

    Attributes:
        seen: (T, H, W) bool, on the device that made it; frame 0 is seen where the source camera sees it.
        kind: "rendered" or "tracked".
        words: the move or regions, for people.
        angle: degrees that the camera turns around its pivot at most; 0 of tracked masks.
        tries: moves or regions that were drawn.
    """

    seen: torch.Tensor
    kind: MaskKind
    words: str
    angle: float = 0.0
    tries: int = 1

    @property
    def unseen(self) -> float:
        """Mean share of the frames that is unseen."""
        return 1 - float(self.seen.float().mean())


def as_wan_renders(surface: DepthSurface) -> DepthSurface:
    """The surface as the engine `wan` renders it: watertight, masks not cleaned; in its own camera's axes.

    A move is relative to each frame's own source camera, so that poses of moving footage do not matter.
    """
    return replace(surface, camera_to_world=None, convention="centered", occlusion="watertight", clean=False)


def rendered_seen(rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath, samples: int = 1) -> torch.Tensor:
    """(T, H, W) bool on the rasterizer's device: what each camera sees of its frame, at least half of the pixel."""
    return torch.cat([drawn.mask for drawn in rendered_parts(rasterizer, surface, camera, samples=samples)])


def rendered_parts(
    rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath, *, with_depth: bool = False, samples: int = 1
) -> Iterator[RenderedBatch]:
    """Render frames in parts that fit into a device's memory, and stay there; arguments as `render_in_batches`."""
    room = BATCH_PIXELS if rasterizer.device.type == "cuda" else CPU_BATCH_PIXELS
    step = max(1, room // (camera.width * camera.height))
    for start in range(0, surface.frames, step):
        part = start, start + step
        how = {"with_depth": with_depth, "samples": samples}
        yield rasterizer.render(surface.frame_range(*part), camera.frames(*part), **how)


def simulate_rendered(
    surface: DepthSurface, settings: MoveSettings, seed: int, rasterizer: Rasterizer
) -> SimulatedMask | None:
    """Draw moves until a mask's unseen share is within the settings' limits.

    Args:
        surface: T frames, best on the rasterizer's device.

    Returns:
        None if none of the drawn moves gives such a mask.
    """
    random = np.random.default_rng(seed)
    surface = as_wan_renders(surface)
    pivot = middle_distance(surface.depth[0].cpu().numpy())
    trial = _Trial(surface, rasterizer, pivot)
    low, high = settings.unseen
    for number in range(1, settings.tries + 1):
        move = draw_move(settings, random)
        wanted = float(random.uniform(low, high))
        radius = int(random.integers(settings.morphology[0], settings.morphology[1] + 1))
        strength = 1.0
        if settings.balance == "unseen":
            strength = trial.strength_for(move, wanted)
        elif not low * 0.8 <= trial.unseen(move, 1.0) <= min(1.0, high * 1.2):
            continue  # the whole mask would be outside, too
        path = move.path(surface.frames, surface.intrinsics.numpy(), surface.size, pivot, strength)
        seen = cleaned(rendered_seen(rasterizer, surface, path, settings.samples), radius)
        words = move.words if strength == 1 else f"{move.words}, at {strength:.2f} of that"
        mask = SimulatedMask(seen, "rendered", words, turned_degrees(path, pivot), number)
        if low <= mask.unseen <= high:
            return mask
    return None


class _Trial:
    """A few small frames of a surface, to learn the unseen share of moves quickly."""

    def __init__(self, surface: DepthSurface, rasterizer: Rasterizer, pivot: float) -> None:
        width, height = surface.size
        self._frames, self._full = surface.frames, surface
        self._places = np.unique(np.linspace(0, surface.frames - 1, _TRIAL_FRAMES).round().astype(int))
        step = max(1, round((width * height / _TRIAL_PIXELS) ** 0.5))
        places = torch.from_numpy(self._places)
        on_device = places.to(surface.device)
        few = replace(
            surface,
            depth=surface.depth[on_device],
            color=surface.color[on_device],
            intrinsics=surface.intrinsics[places],
        )
        self._surface, self._rasterizer, self._pivot = few.reduced(step), rasterizer, pivot

    def unseen(self, move: SampledMove, strength: float) -> float:
        """About the mean unseen share of a move's frames."""
        full = self._full
        path = move.path(self._frames, full.intrinsics.numpy(), full.size, self._pivot, strength)
        camera = path.at([int(place) for place in self._places]).resized(*self._surface.size)
        seen = rendered_seen(self._rasterizer, self._surface, camera)
        shares = 1 - seen.flatten(1).float().mean(dim=1).cpu().numpy()
        return float(np.interp(np.arange(self._frames), self._places, shares).mean())

    def strength_for(self, move: SampledMove, wanted: float) -> float:
        """The strength whose unseen share is nearest to the wanted one; 1 where the whole move has less."""
        if self.unseen(move, 1.0) <= wanted:
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.unseen(move, middle) < wanted else (low, middle)
        return (low + high) / 2
