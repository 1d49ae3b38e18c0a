"""Conditioning: from the rendered frames of a window to the pixels, masks and latents that they become.

First the working size (multiples of 16, aspect kept), then colour and mask of a window as the published weights were
trained on, then Wan's image-to-video inputs: the mask of known frames, and the video of these followed by grey, for the
VAE.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from ex4d.generation.wan.enlarging import INTERPOLATION, Enlarger
from ex4d.raster import RenderedFrame
from ex4d_core.final_sizes import working_size

# The VAE's factor (8) times the transformer's patches (2).
SIZE_STEP = 16
# Frames of each latent after the first, which has one.
LATENT_FRAMES = 4
# Even. A camera that moves a little tears holes of a pixel or two, which are no places to be invented.
_SMALL_HOLE = 4


@dataclass(frozen=True)
class WorkingSize:
    """The size at which a shot is generated.

    Attributes:
        width, height: of the rendered frames.
        scaled_width, scaled_height: after scaling; the same for frames that are small enough and have square pixels.
    """

    width: int
    height: int
    scaled_width: int
    scaled_height: int

    @staticmethod
    def of(width: int, height: int, max_pixels: int, pixel_aspect: float = 1.0) -> WorkingSize:
        """Return the working size of frames; see `ex4d_core.final_sizes.working_size`."""
        return WorkingSize(width, height, *working_size(width, height, max_pixels, pixel_aspect))

    @property
    def padded_width(self) -> int:
        """A multiple of `SIZE_STEP`; the padding at the right is cropped from the result."""
        return -(-self.scaled_width // SIZE_STEP) * SIZE_STEP

    @property
    def padded_height(self) -> int:
        """A multiple of `SIZE_STEP`; the padding at the bottom is cropped from the result."""
        return -(-self.scaled_height // SIZE_STEP) * SIZE_STEP

    def latent_shape(self, frames: int) -> tuple[int, int, int]:
        """Return (F, h, w) of the latents of 4n + 1 frames."""
        return latent_count(frames), self.padded_height // 8, self.padded_width // 8

    def downscale(self, color: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale (T, 3, H, W) float colour, black where unseen, and (T, 1, H, W) float mask, and pad them.

        Unseen pixels have no weight when colours are averaged, or every hole would get a dark rim.
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

    def upscale(self, frames: torch.Tensor, enlarge: Enlarger = INTERPOLATION) -> torch.Tensor:
        """Crop and scale padded frames (T, 3, h, w) in [-1, 1] back to (T, 3, H, W)."""
        frames = frames[..., : self.scaled_height, : self.scaled_width]
        if (self.scaled_width, self.scaled_height) == (self.width, self.height):
            return frames
        return enlarge(frames, self.width, self.height)


def latent_count(frames: int) -> int:
    """Return the number of latents of 4n + 1 frames."""
    return (frames - 1) // LATENT_FRAMES + 1


def erosion_sides(count: int, sides: tuple[int, int], seed: int) -> list[int]:
    """Draw the side of the square by which each frame's mask is eroded, from the seed and the frame's number alone.

    The original draws them too, without a seed: the published weights expect masks that are eroded by varying amounts.
    """
    generator = random.Random(seed)
    return [generator.randint(*sides) for _ in range(count)]


def erode(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Remove the pixels of a (H, W) bool mask that have an unseen one within a square; outside the frame all is seen.

    A square with an even side reaches one pixel further to the left and up, as OpenCV's does.
    """
    if side < 2:
        return mask
    before = side // 2
    unseen = functional.pad((~mask).float()[None, None], (before, side - 1 - before) * 2)
    return functional.max_pool2d(unseen, side, stride=1)[0, 0] < 0.5


def close_small_holes(color: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill holes of up to `_SMALL_HOLE` pixels across with the mean of what is seen around; larger ones stay.

    Args:
        color: (1, 3, H, W), 0 where unseen.
        mask: (1, 1, H, W), 1 where seen.
    """
    side, margin = _SMALL_HOLE + 1, _SMALL_HOLE // 2
    near = functional.max_pool2d(mask, side, 1, margin)
    closed = torch.maximum(1 - functional.max_pool2d(1 - near, side, 1, margin), mask)
    around = functional.avg_pool2d(color * mask, side, 1, margin)
    around = around / functional.avg_pool2d(mask, side, 1, margin).clamp_min(1e-6)
    return torch.where(mask > 0, color, around * closed), closed


@dataclass(frozen=True)
class WindowPixels:
    """A window's frames at the working size.

    Attributes:
        color: (1, 3, T, H, W) float32 in [-1, 1], black where unseen.
        mask: (1, 3, T, H, W) float32, 1 where seen and -3 elsewhere.
        visible_fraction: (T,) fraction of seen pixels.
    """

    color: torch.Tensor
    mask: torch.Tensor
    visible_fraction: tuple[float, ...]

    def with_known(self, frames: torch.Tensor) -> WindowPixels:
        """The same with first frames (1, 3, K, h, w) that were made already, all of them seen."""
        known = frames.shape[2]
        color, mask = self.color.clone(), self.mask.clone()
        color[:, :, :known], mask[:, :, :known] = frames, 1
        return WindowPixels(color, mask, (*[1.0] * known, *self.visible_fraction[known:]))


@dataclass(frozen=True)
class WindowConditioning:
    """All inputs of the transformer for one window, beside noise and timestep.

    Attributes:
        prompt_embeds: (1, L, C).
        negative_prompt_embeds: (1, L, C); None without classifier-free guidance.
        control_latents: (1, 32, F, h, w) of colour and of mask, for the camera encoder.
        image_latents: (1, 20, F, h, w), mask and latents of the known frames; Wan's ``y``.
        image_embeds: (1, 257, 1280), CLIP's of the first frame.
        known_latents: (1, 16, K, h, w) of the first frames, from the window before; None at the start of a shot.
    """

    prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    control_latents: torch.Tensor
    image_latents: torch.Tensor
    image_embeds: torch.Tensor
    known_latents: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> WindowConditioning:
        """Return the same on another device."""
        return replace(self, **{name: part.to(device) for name, part in vars(self).items() if part is not None})


def window_pixels(
    frames: Sequence[RenderedFrame],
    sides: Sequence[int],
    size: WorkingSize,
    device: torch.device | str = "cpu",
    *,
    whole_first: bool = False,
) -> WindowPixels:
    """Convert a window's frames to colour and mask as the published weights were trained on them, on ``device``.

    The original scales the mask twice, {0, 1} to {-1, 1} to {-3, 1}.

    Args:
        sides: of the square by which each frame's mask is eroded.
        whole_first: the first frame keeps all that is seen of it, and its small holes are closed.
    """
    colors, masks = [], []
    for place, (frame, side) in enumerate(zip(frames, sides, strict=True)):
        color = torch.from_numpy(np.ascontiguousarray(frame.color)).to(device).permute(2, 0, 1)[None].float() / 255
        mask = torch.from_numpy(np.ascontiguousarray(frame.known)).to(device)[None, None].float()
        # At a soft edge, pixels of which less than half was seen have colours, too.
        color = color * mask
        if whole_first and place == 0:
            (color, mask), side = close_small_holes(color, mask), 0
        color, mask = size.downscale(color, mask)
        mask = erode(mask[0, 0] > 0.5, side)[None, None].float()
        colors.append(color * mask)
        masks.append(mask)
    color, mask = torch.cat(colors), torch.cat(masks)
    visible_fraction = tuple(mask.mean(dim=(1, 2, 3)).tolist())
    color = (color * 2 - 1).permute(1, 0, 2, 3)[None]
    mask = ((mask * 2 - 1) * 2 - 1).expand(-1, 3, -1, -1).permute(1, 0, 2, 3)[None]
    return WindowPixels(color, mask, visible_fraction)


def image_to_video_input(known: torch.Tensor, frames: int) -> torch.Tensor:
    """Append mid grey to the known first frames (1, 3, K, H, W) in [-1, 1]: the video that becomes image latents."""
    if known.shape[2] == frames:
        return known
    grey = known.new_zeros(*known.shape[:2], frames - known.shape[2], *known.shape[3:])
    return torch.cat([known, grey], dim=2)


def known_mask(known: int, frames: int, height: int, width: int) -> torch.Tensor:
    """Mark known frames by 1 in (1, 4, F, h, w) float32. The first latent has one frame, marked four times."""
    flags = torch.zeros(frames + LATENT_FRAMES - 1)
    flags[: known + LATENT_FRAMES - 1] = 1
    flags = flags.reshape(-1, LATENT_FRAMES).T
    return flags[None, :, :, None, None].expand(1, LATENT_FRAMES, flags.shape[1], height, width).contiguous()
