"""A window of rendered frames to what the transformer takes beside noise and prompt.

Sizes first (multiples of 16, aspect kept), then colour and mask as the published weights saw them, then their latents
and Wan's image-to-video inputs: the mask of known frames, and the VAE's latents of these with grey after them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ex4d.raster import RenderedFrame
from ex4d_core.generation import working_size

# VAE (8) times the transformer's patches (2).
SIZE_STEP = 16
# Frames for each latent after the first, which stands for one.
LATENT_FRAMES = 4


@dataclass(frozen=True)
class WorkingSize:
    """The size at which a shot is generated, and the way to it and back.

    Attributes:
        width, height: of the rendered frames.
        scaled_width, scaled_height: after making them smaller; the same where they are small enough.
        padded_width, padded_height: multiples of `SIZE_STEP`; what is added at the right and below is cut off again.
    """

    width: int
    height: int
    scaled_width: int
    scaled_height: int

    @staticmethod
    def of(width: int, height: int, max_pixels: int) -> WorkingSize:
        """Args:
        max_pixels: 0 for any number.
        """
        return WorkingSize(width, height, *working_size(width, height, max_pixels))

    @property
    def padded_width(self) -> int:
        return -(-self.scaled_width // SIZE_STEP) * SIZE_STEP

    @property
    def padded_height(self) -> int:
        return -(-self.scaled_height // SIZE_STEP) * SIZE_STEP

    def latent_shape(self, frames: int) -> tuple[int, int, int]:
        """(F, h, w) of the latents of 4n + 1 frames."""
        return latent_count(frames), self.padded_height // 8, self.padded_width // 8

    def shrink(self, color: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, 3, H, W) float colour, black where unseen, and (T, 1, H, W) float mask, to the padded size.

        Unseen pixels count for nothing when colours are averaged, or every hole would get a dark rim.
        """
        if (self.scaled_width, self.scaled_height) != (self.width, self.height):
            size = (self.scaled_height, self.scaled_width)
            color = functional.interpolate(color, size, mode="bilinear", antialias=True)
            mask = functional.interpolate(mask, size, mode="bilinear", antialias=True)
            color = color / mask.clamp_min(1e-6)
            mask = (mask > 0.5).to(mask.dtype)
            color = color.clamp(0, 1) * mask
        margin = (0, self.padded_width - self.scaled_width, 0, self.padded_height - self.scaled_height)
        return functional.pad(color, margin, mode="replicate"), functional.pad(mask, margin, mode="replicate")

    def enlarge(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, 3, padded) frames in [-1, 1] back to (T, 3, H, W)."""
        frames = frames[..., : self.scaled_height, : self.scaled_width]
        if (self.scaled_width, self.scaled_height) == (self.width, self.height):
            return frames
        return functional.interpolate(frames, (self.height, self.width), mode="bicubic").clamp(-1, 1)


def latent_count(frames: int) -> int:
    """Latents of 4n + 1 frames."""
    return (frames - 1) // LATENT_FRAMES + 1


def round_up(frames: int) -> int:
    """The smallest 4n + 1 that is not less."""
    return -(-(frames - 1) // LATENT_FRAMES) * LATENT_FRAMES + 1


def erosion_sides(count: int, sides: tuple[int, int], seed: int) -> list[int]:
    """Side of the square by which each frame's mask shrinks; depends on nothing but the seed and the frame's number.

    The original draws them too, without a seed; the published weights expect masks that are shrunk by varying amounts.
    """
    draw = random.Random(seed)
    return [draw.randint(*sides) for _ in range(count)]


def erode(mask: torch.Tensor, side: int) -> torch.Tensor:
    """A (H, W) bool mask without the pixels that see an unseen one within a square; beyond the picture all is seen.

    A square with an even side reaches one pixel further to the left and up, as OpenCV's does.
    """
    if side < 2:
        return mask
    before = side // 2
    unseen = functional.pad((~mask).float()[None, None], (before, side - 1 - before) * 2)
    return functional.max_pool2d(unseen, side, stride=1)[0, 0] < 0.5


@dataclass(frozen=True)
class WindowPixels:
    """A window's frames at the working size.

    Attributes:
        color: (1, 3, T, H, W) float32 in [-1, 1], black where unseen.
        mask: (1, 3, T, H, W) float32, 1 where seen and -3 elsewhere.
        seen: (T,) share of seen pixels.
    """

    color: torch.Tensor
    mask: torch.Tensor
    seen: tuple[float, ...]


def window_pixels(
    frames: Sequence[RenderedFrame], sides: Sequence[int], size: WorkingSize, device: torch.device | str = "cpu"
) -> WindowPixels:
    """Colour and mask as the published weights saw them, on ``device``.

    The original scales the mask twice, {0, 1} to {-1, 1} to {-3, 1}; the weights were trained on that.
    """
    colors, masks = [], []
    for frame, side in zip(frames, sides, strict=True):
        color = torch.from_numpy(np.ascontiguousarray(frame.color)).to(device).permute(2, 0, 1)[None].float() / 255
        mask = torch.from_numpy(np.ascontiguousarray(frame.mask)).to(device)[None, None].float()
        color, mask = size.shrink(color, mask)
        mask = erode(mask[0, 0] > 0.5, side)[None, None].float()
        colors.append(color * mask)
        masks.append(mask)
    color, mask = torch.cat(colors), torch.cat(masks)
    seen = tuple(mask.mean(dim=(1, 2, 3)).tolist())
    color = (color * 2 - 1).permute(1, 0, 2, 3)[None]
    mask = ((mask * 2 - 1) * 2 - 1).expand(-1, 3, -1, -1).permute(1, 0, 2, 3)[None]
    return WindowPixels(color, mask, seen)


def image_to_video_input(known: torch.Tensor, frames: int) -> torch.Tensor:
    """What Wan's VAE encodes for ``y``: the known first frames, and mid grey for the others.

    Args:
        known: (1, 3, K, H, W) in [-1, 1].
    """
    grey = known.new_zeros(*known.shape[:2], frames - known.shape[2], *known.shape[3:])
    return torch.cat([known, grey], dim=2)


def known_mask(known: int, frames: int, height: int, width: int) -> torch.Tensor:
    """(1, 4, F, h, w) float32: 1 for known frames. The first latent stands for one frame, written four times."""
    flags = torch.zeros(frames + LATENT_FRAMES - 1)
    flags[: known + LATENT_FRAMES - 1] = 1
    flags = flags.reshape(-1, LATENT_FRAMES).T
    return flags[None, :, :, None, None].expand(1, LATENT_FRAMES, flags.shape[1], height, width).contiguous()
