"""`KeyFrames`: what some frames of a clip know of places that another frame does not see.

Their surfaces are drawn from the new camera by the `warp` rasterizer, and fill unseen pixels with the footage's own
colours. `ex4d.pipeline.clip_memory` chooses the frames.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
import warp as wp
from cachetools import LRUCache

from ex4d.devices import cpu_cores
from ex4d.kernels import BLOCK_THREADS, load_kernels
from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch
from ex4d.raster.recalling import SAME_SURFACE, DrawnKeys, Images, NewViews, fill_holes, lens_of
from ex4d.raster.tiles import Tiles, tiles_with, widened
from ex4d.raster.warp import remembering
from ex4d.raster.warp_rasterizer import WarpRasterizer
from ex4d_core.cameras import CameraPath

# Share of the depth within which two frames see the same point, when motion is looked for. Depth of neighbouring frames
# flickers by a few percent as networks estimate it; a subject that moves by less stays.
_STILL_DEPTH = 0.12
# Largest difference of a colour channel, of 255, within which they see the same colour there.
_STILL_COLOR = 40
# So many frames must agree on a pixel for each that contradicts: one silhouette that is a pixel off must not count.
_AGREEING_SHARE = 3
# Pixels of the shorter side of the small images in which is looked for what key frames can fill, and how many of them
# beside a place that they can are tried as well.
_SEARCH_SIDE = 64
_AROUND = 2
# Of what can be filled, a key frame is drawn only for more than this share that others do not fill.
_WORTH = 0.03
# Pixels of the squares of small images that are drawn where they have a hole.
_TILE = 8
# Frames of footage whose solid is kept: a live view shows one frame again and again.
_KEPT_SOLIDS = 2


class KeyFrames:
    """Key frames of a clip, ready to be drawn from any camera.

    Attributes:
        frames: their numbers in the clip.
        contradicted: numbers of those left out, since most of what the others see contradicts their depth: poses that
            do not fit the depth, or a moving subject that fills the frame.
    """

    def __init__(
        self,
        surface: DepthSurface,
        frames: Sequence[int],
        rasterizer: WarpRasterizer,
        moving: torch.Tensor | None = None,
    ) -> None:
        """Find what stands still.

        Args:
            surface: of the key frames, in the "centered" convention, with poses.
            frames: their numbers.
            rasterizer: draws them, and says on which device they are kept.
            moving: (K, H, W) bool, what moves by the artist's mask: neither remembered nor a proof that something else
                stands still.
        """
        self._rasterizer = rasterizer
        load_kernels([remembering], rasterizer.device)
        surface = surface.to(rasterizer.device).drawn_as(occlusion="thickness", convention="centered", clean=False)
        # A pixel's colour reaches into its neighbours where key frames are drawn.
        masked = None if moving is None else widened(moving.to(rasterizer.device), 1)
        agreeing, contradicting = _compared(surface, masked)
        usable = agreeing.flatten(1).sum(1) >= contradicting.flatten(1).sum(1)
        kept = usable.nonzero()[:, 0].tolist()
        self.contradicted = tuple(frame for k, frame in enumerate(frames) if k not in kept)
        self.frames = tuple(frames[k] for k in kept)
        still = contradicting * _AGREEING_SHARE <= agreeing
        still &= ~_beside_nearer(~still, surface.depth)
        if masked is not None:
            still &= ~masked
        self._still = (still[usable] if self.contradicted else still).view(torch.uint8)
        self._surface = _selected(surface, kept) if self.contradicted and kept else surface
        self._solids: LRUCache[Hashable, tuple[DepthSurface, DepthSurface]] = LRUCache(_KEPT_SOLIDS)
        self._small = self._surface.in_8_bits().reduced(max(1, min(surface.size) // _SEARCH_SIDE))
        if kept:
            for one in (self._surface, self._small):
                one.surface_colors  # noqa: B018 - measured once, with shares and back limits, not at every drawing

    def recall(
        self, rendered: RenderedBatch, surface: DepthSurface, camera: CameraPath, shown: Sequence[int]
    ) -> RenderedBatch:
        """Fill what frames of a render do not see, as far as the key frames know it.

        Args:
            rendered: with depth.
            surface: what was drawn, with poses.
            camera: from where.
            shown: the numbers of the frames.

        Returns:
            The frames on the device of ``rendered``, with `RenderedBatch.remembered`; colour, also deep colour where
            key frames have one, and depth have the remembered surface there.
        """
        device = rendered.color.device
        remembered = torch.zeros(rendered.mask.shape, dtype=torch.bool, device=self._rasterizer.device)
        if len(self.frames) < 2:  # nothing that two could agree on
            return replace(rendered, remembered=remembered.to(device))
        assert rendered.depth is not None, "rendered with depth"
        # Frames are written in place: copies, also where the device is the same.
        own_deep = rendered.color.new_empty((0, *rendered.color.shape[1:]), dtype=torch.float16)
        if rendered.deep_color is not None and self._surface.deep_color is not None:
            own_deep = rendered.deep_color
        color, deep, depth = (
            torch.empty_like(values, device=self._rasterizer.device).copy_(values)
            for values in (rendered.color, own_deep, rendered.depth)
        )
        mask = rendered.mask.to(self._rasterizer.device)
        # Cleaning moves pixels between seen and unseen, but leaves the depth of those that are unseen afterwards.
        is_exact = surface.occlusion == "thickness" and rendered.alpha is None
        skipped = self._skipped(shown)
        for k in range(len(mask)):
            if not bool(mask[k].all()):
                one = slice(k, k + 1)
                own, small = self._solids_of(surface.frame_range(k, k + 1), shown[k])
                view = NewViews(own, camera.frames(k, k + 1), skipped[one])
                images = Images(color[one], deep[one], depth[one], remembered[one])
                self._recall_one(~mask[one], view, small, images, depth[one] if is_exact else None)
        color, deep, depth, remembered = (values.to(device) for values in (color, deep, depth, remembered))
        if rendered.alpha is not None:
            # Of these pixels a part was seen, which stays, in front of what is remembered.
            edge = remembered & (rendered.alpha > 0) & (rendered.alpha < 255)
            share = rendered.alpha[edge][:, None].float() / 255
            mixed = share * rendered.color[edge] + (1 - share) * color[edge] + 0.5
            color[edge] = mixed.to(torch.uint8)
            if len(deep):
                deep[edge] = (share * own_deep[edge].float() + (1 - share) * deep[edge].float()).half()
        filled = replace(rendered, color=color, depth=depth, remembered=remembered)
        return replace(filled, deep_color=deep) if len(deep) else filled

    def remembered(
        self, rendered: RenderedBatch, surface: DepthSurface, camera: CameraPath, shown: Sequence[int]
    ) -> torch.Tensor:
        """(T, h, w) bool, which pixels of small images `recall` would fill, all frames at once.

        Every key frame is drawn wherever there is a hole: a search for what is worth it takes longer than small images.

        Args:
            rendered: with depth, drawn by the rasterizer of the key frames, by the "thickness" model, with one sample
                and masks as they are.
            surface: what was drawn, with poses.
            camera: from where.
            shown: the numbers of the frames.
        """
        hole = ~rendered.mask
        images = Images.empty(hole.shape, hole.device, with_color=False)
        if len(self.frames) < 2 or not bool(hole.any()):
            return images.remembered
        assert rendered.depth is not None, "rendered with depth"
        views, count = NewViews(surface.to(hole.device), camera, self._skipped(shown)), len(self.frames)
        wanted = torch.stack([tiles_with(one, _TILE) for one in hole]).repeat_interleave(count, dim=0)
        drawn = self._rasterizer.render_tiles(
            self._surface.repeated(len(hole)), _repeated(camera, count), Tiles(wanted, _TILE, is_solid=False)
        )
        self._fill(hole, views, drawn, rendered.depth, images)
        return images.remembered

    def _solids_of(self, own: DepthSurface, number: int) -> tuple[DepthSurface, DepthSurface]:
        """One frame of footage as a solid, and small; those of the last frames are kept, with what is measured of them.

        Solid to a plausible depth, whatever the render's model: a watertight frame has a wall before all it never saw.
        """
        key = number, own.size, own.occlusion_rule
        if key not in self._solids:
            solid = own.in_8_bits().to(self._rasterizer.device)
            solid = solid.drawn_as(occlusion="thickness", convention="centered", clean=False)
            small = solid.reduced(max(1, min(self._surface.size) // _SEARCH_SIDE))
            for one in (solid, small):
                one.surface_colors  # noqa: B018 - measured once, with shares and back limits, not at every drawing
            self._solids[key] = solid, small
        return self._solids[key]

    def _skipped(self, shown: Sequence[int]) -> list[int]:
        """Which key frame each frame is itself, or -1."""
        return [self.frames.index(number) if number in self.frames else -1 for number in shown]

    def _recall_one(
        self,
        hole: torch.Tensor,
        view: NewViews,
        small: DepthSurface,
        images: Images,
        drawn: torch.Tensor | None,
    ) -> None:
        """Write the colour, depth and mask of what one frame remembers into its images.

        Args:
            hole: (1, h, w) bool, where it sees nothing.
            small: the view's own solid, small.
            drawn: its depth (1, h, w), if that is of the pixels' centres in the "thickness" model, at least in holes.
        """
        tiles = self._worth_drawing(hole[0], view, small)
        if not bool(tiles.wanted.any()):
            return
        # What is drawn is written over.
        wall = self._wall(view, tiles.of_any) if drawn is None else drawn.clone()
        keys = self._rasterizer.render_tiles(self._surface, _repeated(view.camera, len(self.frames)), tiles)
        self._fill(hole, view, keys, wall, images)

    def _worth_drawing(self, hole: torch.Tensor, view: NewViews, own: DepthSurface) -> Tiles:
        """Where each key frame may fill holes, by drawing all of them small.

        Holes are often large, lie where no key frame looks, or are thin rims of what all of them see.

        Args:
            hole: (h, w) bool.
            own: the view's own solid, small.
        """
        side = max(1, min(view.camera.size) // _SEARCH_SIDE)
        with_hole = tiles_with(hole, side)
        if side == 1:
            return Tiles(with_hole.expand(len(self.frames), -1, -1).contiguous(), side, is_solid=False)
        intrinsics = view.camera.intrinsics.copy()
        intrinsics[:, :2] /= side
        small = CameraPath(view.camera.world_to_camera, intrinsics, with_hole.shape[1], with_hole.shape[0])
        around = widened(with_hole[None], 1)
        images = Images.empty(around.shape, self._rasterizer.device)
        near = replace(view, camera=small)
        wall = self._wall(replace(near, own=own), Tiles(around, 1))
        everywhere = Tiles(around.expand(len(self.frames), -1, -1).contiguous(), 1, is_solid=False)
        keys = self._rasterizer.render_tiles(self._small, _repeated(small, len(self.frames)), everywhere)
        self._fill(around, near, keys, wall, images)
        assert keys.depth is not None, "drawn with depth"
        # What does not count has an infinite depth by now.
        agrees = (keys.depth - images.depth).abs() <= SAME_SURFACE * images.depth
        return Tiles(widened(_most_useful(agrees & images.remembered), _AROUND) & with_hole, side, is_solid=False)

    def _fill(
        self, hole: torch.Tensor, views: NewViews, keys: RenderedBatch, wall: torch.Tensor, images: Images
    ) -> None:
        fill_holes(hole, views, DrawnKeys(self._surface, self._still, keys), wall, images, self._rasterizer)

    def _wall(self, view: NewViews, tiles: Tiles) -> torch.Tensor:
        """(1, h, w) depth up to which a frame's own solid leaves the rays free, in some tiles of its image."""
        drawn = self._rasterizer.render_tiles(view.own, view.camera, tiles)
        assert drawn.depth is not None, "drawn with depth"
        return drawn.depth


def _beside_nearer(moves: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """(K, H, W) bool: which pixels are beside a nearer one that moves, whose rim is drawn over them."""
    nearest = -F.max_pool2d(-torch.where(moves, depth, torch.inf)[:, None], 3, stride=1, padding=1)[:, 0]
    return nearest < depth * (1 - _STILL_DEPTH)


def _most_useful(knows: torch.Tensor) -> torch.Tensor:
    """What a few key frames know, (K, h, w) bool, of what all of them know: those that together fill nearly all.

    One after the other is taken that knows most places that fewer than two of those before it know.
    """
    known = knows.flatten(1).cpu()
    times, chosen = torch.zeros(known.shape[1], dtype=torch.int32), torch.zeros(len(known), dtype=torch.bool)
    least = _WORTH * int(known.any(0).sum())
    while True:
        gain = (known & (times < 2)).sum(1) * ~chosen
        best = int(gain.argmax())
        if int(gain[best]) <= least:
            return knows & chosen.to(knows.device)[:, None, None]
        chosen[best] = True
        times += known[best]


def _repeated(camera: CameraPath, count: int) -> CameraPath:
    """Each frame of a camera, several times."""
    poses, lenses = (np.repeat(values, count, axis=0) for values in (camera.world_to_camera, camera.intrinsics))
    return CameraPath(poses, lenses, *camera.size)


def _compared(surface: DepthSurface, moving: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """How many other frames agree with each pixel, and how many contradict it: (K, H, W) uint8 each.

    Args:
        moving: (K, H, W) bool, which pixels neither get votes nor have any.
    """
    count, (width, height) = surface.frames, surface.size
    device = wp.device_from_torch(surface.device)
    agreeing, contradicting = (
        torch.zeros(count, height, width, dtype=torch.uint8, device=surface.device) for _ in range(2)
    )
    assert surface.camera_to_world is not None, "key frames have poses"
    poses = torch.linalg.inv(surface.camera_to_world)[None] @ surface.camera_to_world[:, None]
    none = torch.empty(0, 0, 0, dtype=torch.uint8, device=surface.device)
    inputs = [
        wp.from_torch(surface.depth.contiguous()),
        wp.from_torch(surface.color.contiguous()),
        wp.from_torch(lens_of(surface).to(surface.device), dtype=wp.vec4d),
        wp.from_torch(poses.contiguous().to(surface.device), dtype=wp.mat44d),
        _STILL_DEPTH,
        _STILL_COLOR,
        wp.from_torch(none if moving is None else moving.view(torch.uint8)),
        wp.from_torch(agreeing),
        wp.from_torch(contradicting),
    ]
    span = 1 if surface.device.type == "cuda" else width

    def compare(first: int, frames: int) -> None:
        dim = (frames, height, -(-width // span))
        what = {"inputs": [first, span, *inputs], "device": device, "block_dim": BLOCK_THREADS}
        wp.launch(remembering.compare_key_frames, dim=dim, **what)

    if surface.device.type == "cuda":
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(surface.device)), sync_enter=False):
            compare(0, count)
    else:  # where Warp runs a kernel in the calling thread
        with ThreadPoolExecutor(min(cpu_cores(), count)) as pool:
            list(pool.map(lambda key: compare(key, 1), range(count)))
    return agreeing, contradicting


def _selected(surface: DepthSurface, kept: list[int]) -> DepthSurface:
    poses, deep = surface.camera_to_world, surface.deep_color
    return replace(
        surface,
        depth=surface.depth[kept],
        color=surface.color[kept],
        intrinsics=surface.intrinsics[kept],
        camera_to_world=None if poses is None else poses[kept],
        deep_color=None if deep is None else deep[kept],
    )
