"""Tracking masks: regions that go unseen stay with the scene points that they hide, through the whole clip.

With a known camera the clip's own mesh says where the points of one frame are seen in the others: the surface of that
frame is rendered from every frame's camera, and what lies on the surface that the frame itself shows is the same point.
Otherwise dense tracks by optical flow say it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer
from ex4d.training.hidden_regions import NEVER, HiddenRegions, draw_regions
from ex4d.training.mask_morphology import closed
from ex4d.training.mask_settings import RegionSettings
from ex4d.training.optical_flow_tracks import levels_along, tracked_from
from ex4d.training.rendered_masks import SimulatedMask, rendered_parts
from ex4d_core.cameras import CameraPath, invert_rigid

# Pixels that fall between the points of another frame are closed within this radius.
_CLOSING = 2


def simulate_tracked(
    surface: DepthSurface,
    settings: RegionSettings,
    unseen: tuple[float, float],
    tries: int,
    seed: int,
    rasterizer: Rasterizer,
    *,
    camera_known: bool,
) -> SimulatedMask | None:
    """Draw regions until a mask's unseen share is within limits.

    Args:
        surface: T frames, with `camera_to_world` where the camera moves and is known.
        unseen: smallest and largest mean unseen share.
        tries: regions that are drawn at most.
        camera_known: whether the source camera is known, be it one that stands still.

    Returns:
        None if none of the drawn regions gives such a mask.
    """
    random = np.random.default_rng(seed)
    by_mesh = settings.tracks == "mesh" or (settings.tracks == "auto" and camera_known)
    tracks: dict[int, torch.Tensor] = {}
    for number in range(1, tries + 1):
        frame = int(random.integers(surface.frames))
        regions = draw_regions(surface.depth[frame], surface.frames, frame, settings, random)
        if by_mesh:
            levels = levels_by_mesh(surface, regions, settings.depth_tolerance, rasterizer)
        else:
            if frame not in tracks:
                tracks[frame] = tracked_from(surface.color.cpu().numpy(), frame, settings.flow_error)
            levels = levels_along(tracks[frame], regions.levels, NEVER).to(rasterizer.device)
        opened = torch.from_numpy(regions.opened).to(levels.device)[:, None, None]
        hidden = closed(levels <= opened, _CLOSING)
        hidden[0] = False  # a shot starts from a frame that is seen whole
        words = f"{regions.words}, by {'the mesh' if by_mesh else 'optical flow'}"
        mask = SimulatedMask(~hidden, "tracked", words, tries=number)
        if unseen[0] <= mask.unseen <= unseen[1]:
            return mask
    return None


def levels_by_mesh(
    surface: DepthSurface, regions: HiddenRegions, tolerance: float, rasterizer: Rasterizer
) -> torch.Tensor:
    """The regions' levels (T, H, W) in all frames: `NEVER` where a frame does not show a point of a region.

    Args:
        tolerance: how far a point may lie from a frame's surface and still be the same, as a share of its depth.
    """
    frames, (width, height) = surface.frames, surface.size
    depth = surface.depth.to(rasterizer.device)
    marked = regions.levels.clamp(max=NEVER).to(depth.device)
    # Two channels hold the level and whether there is one; at borders between both a pixel has neither.
    color = torch.stack([marked.clamp(max=255), (marked < NEVER) * 255, torch.zeros_like(marked)], dim=-1)
    one = slice(regions.frame, regions.frame + 1)
    anchored = replace(
        surface,
        depth=depth[one].expand(frames, -1, -1),
        color=color.to(torch.uint8)[None].expand(frames, -1, -1, -1),
        intrinsics=surface.intrinsics[one].expand(frames, -1, -1),
        camera_to_world=None
        if surface.camera_to_world is None
        else surface.camera_to_world[one].expand(frames, -1, -1),
        convention="centered",
        occlusion="open",
        clean=False,
    )
    poses = np.tile(np.eye(4), (frames, 1, 1))
    if surface.camera_to_world is not None:
        poses = invert_rigid(surface.camera_to_world.numpy())
    camera = CameraPath(poses, surface.intrinsics.numpy(), width, height)
    levels, start = [], 0
    for drawn in rendered_parts(rasterizer, anchored, camera, with_depth=True):
        assert drawn.depth is not None, "rendered with depth"
        own = depth[start : start + len(drawn.mask)]
        start += len(own)
        same = drawn.mask & ((drawn.depth - own).abs() <= tolerance * own) & (drawn.color[..., 1] > 127)
        levels.append(torch.where(same, drawn.color[..., 0].int(), NEVER))
    return torch.cat(levels)
