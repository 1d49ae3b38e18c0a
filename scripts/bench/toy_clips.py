"""Monocular clips of `toy_scenes`, the masks that are laid over them, and true new views with what is seen in each.

Simulated masks are those that `ex4d.training` lays over footage; they are compared with rectangles that hide as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bench.toy_scenes import PIVOT, Cameras, Images, MovingScenes, orbit_poses, random_cameras, random_scenes
from ex4d.mesh import DepthSurface
from ex4d.raster import create_rasterizer
from ex4d.training.mask_settings import MoveSettings, RegionSettings
from ex4d.training.rendered_masks import as_wan_renders, rendered_seen
from ex4d.training.sampled_moves import draw_move
from ex4d.training.tracked_masks import simulate_tracked
from ex4d_core.cameras import CameraPath

# Clips that are filmed at a time: rays take about 300 bytes each.
_AT_ONCE = 64
# Share of clips whose own camera moves.
MOVING = 0.75


@dataclass(frozen=True)
class Clips:
    """Monocular clips with their true depth.

    Attributes:
        color: (B, T, H, W, 3) uint8.
        depth: (B, T, H, W) float32 along z, scene units.
        cameras: that filmed them.
    """

    color: torch.Tensor
    depth: torch.Tensor
    cameras: Cameras

    @property
    def surface(self) -> DepthSurface:
        """The frames of all clips, one after the other."""
        poses = self.cameras.camera_to_world.flatten(0, 1).double().cpu()
        intrinsics = self.cameras.intrinsics.repeat(len(poses), 1, 1)
        return DepthSurface(self.depth.flatten(0, 1), self.color.flatten(0, 1), intrinsics, poses)

    def chosen(self, clips: list[int]) -> Clips:
        """Some of the clips."""
        cameras = Cameras(self.cameras.camera_to_world[clips], self.cameras.side)
        return Clips(self.color[clips], self.depth[clips], cameras)

    def rendered(self, cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw each frame's DW-Mesh as wan has it: colour (B, T, H, W, 3) uint8, and mask (B, T, H, W) bool."""
        side = cameras.side
        world_to_camera = torch.linalg.inv(cameras.camera_to_world.flatten(0, 1).double()).cpu().numpy()
        path = CameraPath(world_to_camera, cameras.intrinsics.numpy(), side, side)
        drawn = create_rasterizer("warp", str(self.depth.device)).render(self.surface, path)
        return drawn.color.view_as(self.color), drawn.mask.view_as(self.depth)


@dataclass(frozen=True)
class NewViews:
    """What another camera really sees of clips.

    Attributes:
        color: (B, T, H, W, 3) uint8.
        visible: (B, T, H, W) bool, whether the clip's own camera saw that point in the same frame.
    """

    color: torch.Tensor
    visible: torch.Tensor


def filmed(scenes: MovingScenes, cameras: Cameras, device: torch.device | str) -> Clips:
    """Film scenes; the result is on ``device``."""
    images = [found for _, _, found in _cast_in_parts(scenes, cameras, device)]
    color = torch.cat([_to_uint8(part.color) for part in images])
    poses = cameras.camera_to_world.to(device)
    return Clips(color, torch.cat([part.depth for part in images]), Cameras(poses, cameras.side))


def random_clips(count: int, frames: int, side: int, seed: int, device: torch.device | str) -> Clips:
    """Clips of new scenes; equal for equal seeds."""
    scenes = random_scenes(count, 2 * seed)
    return filmed(scenes, random_cameras(count, frames, side, 2 * seed + 1, moving=MOVING), device)


def true_views(scenes: MovingScenes, clips: Clips, cameras: Cameras) -> NewViews:
    """Cast new views of the scenes that ``clips`` show, and rays back to the clips' own cameras."""
    colors, visible = [], []
    for part, own, images in _cast_in_parts(scenes, cameras, clips.depth.device):
        source = Cameras(clips.cameras.camera_to_world[own], clips.cameras.side)
        colors.append(_to_uint8(images.color))
        visible.append(part.visible(images.points, source))
    return NewViews(torch.cat(colors), torch.cat(visible))


def new_cameras(clips: Clips, seed: int, degrees: tuple[float, float] = (15.0, 60.0)) -> Cameras:
    """A new path for each clip, which starts at its own camera and moves about the pivot in that camera's axes.

    The angle of the last frame is even between ``degrees``, to the left or right; up to 8 degrees up or down, and up
    to a fifth of the distance closer or further away.
    """
    count, frames = clips.depth.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    amount, side, climb, closer = torch.rand(4, count, 1, generator=generator)
    time = torch.linspace(0, 1, frames)
    low, high = degrees
    azimuths = torch.deg2rad(low + (high - low) * amount) * torch.where(side < 0.5, -1.0, 1.0) * time
    elevations = math.radians(8) * (2 * climb - 1) * time
    poses = orbit_poses(azimuths, elevations, 0.2 * (2 * closer - 1) * time)
    return clips.cameras.moved(poses.to(clips.depth.device))


def simulated_masks(clips: Clips, moves: MoveSettings, tracked_share: float, seed: int) -> torch.Tensor:
    """(B, T, H, W) bool, true where seen: rendering masks of each clip's own DW-Mesh, and tracking masks.

    `ex4d.training.simulated_masks` does the same clip by clip; here the meshes of all clips are rendered in one batch.
    A move that hides more or less than ``moves.unseen`` is drawn again; what finds none in ``moves.tries`` is all seen.
    """
    rasterizer = create_rasterizer("warp", str(clips.depth.device))
    generators = [np.random.default_rng([seed, number]) for number in range(len(clips.depth))]
    low, high = moves.unseen
    masks = torch.ones_like(clips.depth, dtype=torch.bool)
    tracked = [number for number, own in enumerate(generators) if own.random() < tracked_share]
    rendered = sorted(set(range(len(masks))) - set(tracked))
    for _ in range(moves.tries):
        if not rendered:
            break
        part = clips.chosen(rendered)
        paths = [_drawn_path(part, number, moves, generators[clip]) for number, clip in enumerate(rendered)]
        joined = CameraPath(
            np.concatenate([path.world_to_camera for path in paths]),
            np.concatenate([path.intrinsics for path in paths]),
            *paths[0].size,
        )
        seen = rendered_seen(rasterizer, as_wan_renders(part.surface), joined).view_as(part.depth)
        hidden = 1 - seen.flatten(1).float().mean(dim=1)
        fits = ((low <= hidden) & (hidden <= high)).tolist()
        masks[[clip for clip, good in zip(rendered, fits, strict=True) if good]] = seen[torch.tensor(fits)]
        rendered = [clip for clip, good in zip(rendered, fits, strict=True) if not good]
    for clip in tracked:
        found = simulate_tracked(
            clips.chosen([clip]).surface,
            RegionSettings(),
            (low, high),
            moves.tries,
            clip,
            rasterizer,
            camera_known=True,
        )
        if found is not None:
            masks[clip] = found.seen
    return masks


def _drawn_path(clips: Clips, number: int, moves: MoveSettings, generator: np.random.Generator) -> CameraPath:
    frames, side = clips.depth.shape[1:3]
    intrinsics = clips.cameras.intrinsics.repeat(frames, 1, 1).numpy()
    return draw_move(moves, generator).path(frames, intrinsics, (side, side), PIVOT)


def rectangular_masks(shares: torch.Tensor, frames: int, side: int, seed: int) -> torch.Tensor:
    """(B, T, H, W) bool: one to four rectangles of a clip hide it from frame 1 on, at random places.

    Args:
        shares: (B,) that is to be unseen on average over the frames: that of the masks they stand for, so that a clip
            is hidden as much as with those.
    """
    generator = np.random.default_rng(seed)
    masks = np.ones((len(shares), frames, side, side), bool)
    for mask, share in zip(masks, shares.tolist(), strict=True):
        wanted, count = min(0.9, share * frames / max(1, frames - 1)) * side**2, generator.integers(1, 5)
        hidden = np.zeros((side, side), bool)
        # Rectangles overlap: more of them follow until as much is hidden as was asked for.
        while hidden.sum() < wanted:
            area = max(1.0, wanted / count)
            aspect = math.exp(generator.uniform(-1, 1) * math.log(3))
            width = min(side, max(1, round(math.sqrt(area * aspect))))
            height = min(side, max(1, round(area / width)))
            left, top = generator.integers(0, side - width + 1), generator.integers(0, side - height + 1)
            hidden[top : top + height, left : left + width] = True
        mask[1:] = ~hidden
    return torch.from_numpy(masks)


def _cast_in_parts(
    scenes: MovingScenes, cameras: Cameras, device: torch.device | str
) -> Iterator[tuple[MovingScenes, slice, Images]]:
    """Yield some of the scenes, which they are, and what their cameras see."""
    for start in range(0, len(scenes), _AT_ONCE):
        own = slice(start, start + _AT_ONCE)
        part = scenes.part(own).to(device)
        yield part, own, part.cast(Cameras(cameras.camera_to_world[own].to(device), cameras.side))


def _to_uint8(color: torch.Tensor) -> torch.Tensor:
    return (color * 255).round().to(torch.uint8)
