"""`KeyFrames`: what some frames of a clip know of places that another frame does not see.

Their surfaces are drawn from the new camera by the `warp` rasterizer, and fill unseen pixels with the footage's own
colours. `ex4d.pipeline.clip_memory` chooses the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
import warp as wp

from ex4d.devices import cpu_cores
from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch
from ex4d.raster.warp import remembering
from ex4d.raster.warp_inputs import StructInstance
from ex4d.raster.warp_rasterizer import WarpRasterizer
from ex4d_core.cameras import CameraPath

# Share of the depth within which two frames see the same point, when motion is looked for. Depth of neighbouring frames
# flickers by a few percent as networks estimate it; a subject that moves by less stays.
_STILL_DEPTH = 0.12
# Largest difference of a colour channel, of 255, within which they see the same colour there.
_STILL_COLOR = 40
# So many frames must agree on a pixel for each that contradicts: one silhouette that is a pixel off must not count.
_AGREEING_SHARE = 3
# Share of the depth within which two key frames agree on a remembered surface.
_SAME_SURFACE = 0.06
# Share of the depth by which it may contradict what the frame itself saw.
_FREE = 0.05
_SOLID = 0.05


class KeyFrames:
    """Key frames of a clip, ready to be drawn from any camera.

    Attributes:
        frames: their numbers in the clip.
        contradicted: numbers of those left out, since most of what the others see contradicts their depth: poses that
            do not fit the depth, or a moving subject that fills the frame.
    """

    def __init__(self, surface: DepthSurface, frames: Sequence[int], rasterizer: WarpRasterizer) -> None:
        """Find what stands still.

        Args:
            surface: of the key frames, in the "centered" convention, with poses.
            frames: their numbers.
            rasterizer: draws them, and says on which device they are kept.
        """
        self._rasterizer = rasterizer
        surface = replace(surface.to(rasterizer.device), occlusion="thickness", convention="centered", clean=False)
        agreeing, contradicting = _compared(surface)
        usable = agreeing.flatten(1).sum(1) >= contradicting.flatten(1).sum(1)
        kept = usable.nonzero()[:, 0].tolist()
        self.contradicted = tuple(frame for k, frame in enumerate(frames) if k not in kept)
        self.frames = tuple(frames[k] for k in kept)
        still = contradicting * _AGREEING_SHARE <= agreeing
        self._still = (still[usable] if self.contradicted else still).view(torch.uint8)
        self._surface = _selected(surface, kept) if self.contradicted and kept else surface
        if kept:
            self._surface.edge_shares  # noqa: B018 - measured once, with back limits, not at every drawing

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
            The frames on the device of ``rendered``, with `RenderedBatch.remembered`; colour and depth have the
            remembered surface there.
        """
        device = rendered.color.device
        remembered = torch.zeros(rendered.mask.shape, dtype=torch.bool, device=self._rasterizer.device)
        if len(self.frames) < 2:  # nothing that two could agree on
            return replace(rendered, remembered=remembered.to(device))
        assert rendered.depth is not None, "rendered with depth"
        # Frames are written in place: copies, also where the device is the same.
        color, depth = (
            torch.empty_like(values, device=self._rasterizer.device).copy_(values)
            for values in (rendered.color, rendered.depth)
        )
        mask = rendered.mask.to(self._rasterizer.device)
        is_exact = surface.occlusion == "thickness" and not surface.clean and rendered.alpha is None
        for k in range(len(mask)):
            if not bool(mask[k].all()):
                part, one = surface.frame_range(k, k + 1).to(self._rasterizer.device), camera.frames(k, k + 1)
                images = color[k], depth[k], remembered[k]
                self._recall_one(mask[k], part, one, shown[k], *images, is_exact=is_exact)
        color, depth, remembered = (values.to(device) for values in (color, depth, remembered))
        if rendered.alpha is not None:
            # Of these pixels a part was seen, which stays, in front of what is remembered.
            edge = remembered & (rendered.alpha > 0) & (rendered.alpha < 255)
            share = rendered.alpha[edge][:, None].float() / 255
            mixed = share * rendered.color[edge] + (1 - share) * color[edge] + 0.5
            color[edge] = mixed.to(torch.uint8)
        return replace(rendered, color=color, depth=depth, remembered=remembered)

    def _recall_one(
        self,
        mask: torch.Tensor,
        own: DepthSurface,
        camera: CameraPath,
        number: int,
        color: torch.Tensor,
        depth: torch.Tensor,
        remembered: torch.Tensor,
        *,
        is_exact: bool,
    ) -> None:
        """Write the colour, depth and mask of what one frame remembers into its image.

        Args:
            is_exact: whether depth is that of the pixels' centres in the "thickness" model, and no mask was cleaned.
        """
        wall = self._wall(own, camera, depth if is_exact else None)
        everywhere = CameraPath(
            np.repeat(camera.world_to_camera, len(self.frames), axis=0),
            np.repeat(camera.intrinsics, len(self.frames), axis=0),
            *camera.size,
        )
        drawn = self._rasterizer.render(self._surface, everywhere, with_depth=True)
        assert drawn.depth is not None, "rendered with depth"
        poses = torch.from_numpy(camera.camera_to_world)
        lenses = [_lens(self._surface, k, poses[0]) for k in range(len(self.frames))]
        fx, fy, cx, cy = camera.intrinsics[0, [0, 1, 0, 1], [0, 1, 2, 2]]
        with self._rasterizer.torch_stream():
            span = 1 if color.is_cuda else camera.width
            wp.launch(
                remembering.recall_unseen,
                dim=(camera.height, -(-camera.width // span)),
                inputs=[
                    span,
                    wp.vec4d(fx, fy, cx, cy),
                    wp.array(lenses, dtype=remembering.Lens, device=wp.device_from_torch(color.device)),
                    self.frames.index(number) if number in self.frames else -1,
                    wp.from_torch(self._still),
                    wp.from_torch(drawn.color),
                    wp.from_torch(drawn.mask.view(torch.uint8)),
                    wp.from_torch(drawn.depth),
                    _lens(own, 0, poses[0]),
                    wp.from_torch(own.depth.contiguous()),
                    wp.from_torch(wall),
                    wp.from_torch(mask.view(torch.uint8)),
                    _SAME_SURFACE,
                    _FREE,
                    _SOLID,
                    wp.from_torch(color),
                    wp.from_torch(depth),
                    wp.from_torch(remembered.view(torch.uint8)),
                ],
                device=wp.device_from_torch(color.device),
            )

    def _wall(self, own: DepthSurface, camera: CameraPath, depth: torch.Tensor | None) -> torch.Tensor:
        """(h, w) depth up to which a frame's own solid leaves the rays free.

        Solid to a plausible depth, whatever the render's model: a watertight frame has a wall before all it never saw.

        Args:
            depth: (h, w) of the render, where it was drawn so.
        """
        if depth is not None:
            return depth.clone()
        solid = replace(own, occlusion="thickness", convention="centered", clean=False)
        drawn = self._rasterizer.render(solid, camera, with_depth=True)
        assert drawn.depth is not None, "rendered with depth"
        return drawn.depth[0]


def _compared(surface: DepthSurface) -> tuple[torch.Tensor, torch.Tensor]:
    """How many other frames agree with each pixel, and how many contradict it: (K, H, W) uint8 each."""
    count, (width, height) = surface.frames, surface.size
    device = wp.device_from_torch(surface.device)
    agreeing, contradicting = (
        torch.zeros(count, height, width, dtype=torch.uint8, device=surface.device) for _ in range(2)
    )
    assert surface.camera_to_world is not None, "key frames have poses"
    poses = torch.linalg.inv(surface.camera_to_world)[None] @ surface.camera_to_world[:, None]
    inputs = [
        wp.from_torch(surface.depth.contiguous()),
        wp.from_torch(surface.color.contiguous()),
        wp.from_torch(_intrinsics(surface).to(surface.device), dtype=wp.vec4d),
        wp.from_torch(poses.contiguous().to(surface.device), dtype=wp.mat44d),
        _STILL_DEPTH,
        _STILL_COLOR,
        wp.from_torch(agreeing),
        wp.from_torch(contradicting),
    ]
    span = 1 if surface.device.type == "cuda" else width

    def compare(first: int, frames: int) -> None:
        dim = (frames, height, -(-width // span))
        wp.launch(remembering.compare_key_frames, dim=dim, inputs=[first, span, *inputs], device=device)

    if surface.device.type == "cuda":
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(surface.device)), sync_enter=False):
            compare(0, count)
    else:  # where Warp runs a kernel in the calling thread
        with ThreadPoolExecutor(min(cpu_cores(), count)) as pool:
            list(pool.map(lambda key: compare(key, 1), range(count)))
    return agreeing, contradicting


def _selected(surface: DepthSurface, kept: list[int]) -> DepthSurface:
    poses = surface.camera_to_world
    return replace(
        surface,
        depth=surface.depth[kept],
        color=surface.color[kept],
        intrinsics=surface.intrinsics[kept],
        camera_to_world=None if poses is None else poses[kept],
    )


def _intrinsics(surface: DepthSurface) -> torch.Tensor:
    """(T, 4) float64: fx, fy, cx, cy."""
    return surface.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].contiguous()


def _lens(surface: DepthSurface, frame: int, camera_to_world: torch.Tensor) -> StructInstance:
    """The kernels' `Lens` of a source camera, from the space of another camera."""
    lens = remembering.Lens()
    assert surface.camera_to_world is not None, "key frames have poses"
    pose = torch.linalg.inv(surface.camera_to_world[frame]) @ camera_to_world
    lens.pose = wp.mat44d(pose.numpy())
    lens.intrinsics = wp.vec4d(*_intrinsics(surface)[frame].tolist())
    return lens
