"""Conditioning: from a shot's rendered frames to windows, and to the pixels, masks and latents that they become.

First the working size (multiples of 16, aspect kept), then overlapping temporal windows, then colour and mask as the
published weights were trained on, then Wan's image-to-video inputs: the mask of known frames, and the video of these
followed by grey, for the VAE.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch.nn import functional

from ex4d.raster import RenderedFrame
from ex4d_core.final_sizes import working_size

# The VAE's factor (8) times the transformer's patches (2).
SIZE_STEP = 16
# Frames of each latent after the first, which has one.
LATENT_FRAMES = 4


@dataclass(frozen=True)
class WorkingSize:
    """The size at which a shot is generated.

    Attributes:
        width, height: of the rendered frames.
        scaled_width, scaled_height: after downscaling; the same for frames that are small enough.
    """

    width: int
    height: int
    scaled_width: int
    scaled_height: int

    @staticmethod
    def of(width: int, height: int, max_pixels: int) -> WorkingSize:
        """Return the working size of frames; ``max_pixels`` of 0 means no limit."""
        return WorkingSize(width, height, *working_size(width, height, max_pixels))

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

    def upscale(self, frames: torch.Tensor) -> torch.Tensor:
        """Crop and scale padded frames (T, 3, h, w) in [-1, 1] back to (T, 3, H, W)."""
        frames = frames[..., : self.scaled_height, : self.scaled_width]
        if (self.scaled_width, self.scaled_height) == (self.width, self.height):
            return frames
        return functional.interpolate(frames, (self.height, self.width), mode="bicubic").clamp(-1, 1)


def latent_count(frames: int) -> int:
    """Return the number of latents of 4n + 1 frames."""
    return (frames - 1) // LATENT_FRAMES + 1


def round_up_frames(frames: int) -> int:
    """Return the smallest 4n + 1 that is not less."""
    return -(-(frames - 1) // LATENT_FRAMES) * LATENT_FRAMES + 1


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


@dataclass(frozen=True)
class Window:
    """Some consecutive frames of a shot.

    Attributes:
        number: from 0.
        frames: 4n + 1, the last one repeated where the shot ends earlier.
        known: how many of the first frames the window before has generated.
        new: how many frames after these are new; the rest is padding.
    """

    number: int
    frames: tuple[RenderedFrame, ...]
    known: int
    new: int

    @property
    def start(self) -> int:
        """The index of the first frame in the shot."""
        return self.frames[0].index


def split_into_windows(frames: Iterable[RenderedFrame], window: int, overlap: int) -> Iterator[Window]:
    """Split a shot while it is being rendered, into windows of ``window`` frames that share ``overlap``, both 4n + 1.

    Frames are read only as far as the next window needs them.
    """
    stream = iter(frames)
    tail: tuple[RenderedFrame, ...] = ()
    number = 0
    while new := tuple(islice(stream, window - len(tail))):
        real = tail + new
        padding = (real[-1],) * (round_up_frames(len(real)) - len(real))
        yield Window(number, real + padding, len(tail), len(new))
        if len(real) < window:
            return
        tail = real[-overlap:]
        number += 1


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
    frames: Sequence[RenderedFrame], sides: Sequence[int], size: WorkingSize, device: torch.device | str = "cpu"
) -> WindowPixels:
    """Convert a window's frames to colour and mask as the published weights were trained on them, on ``device``.

    The original scales the mask twice, {0, 1} to {-1, 1} to {-3, 1}.
    """
    colors, masks = [], []
    for frame, side in zip(frames, sides, strict=True):
        color = torch.from_numpy(np.ascontiguousarray(frame.color)).to(device).permute(2, 0, 1)[None].float() / 255
        mask = torch.from_numpy(np.ascontiguousarray(frame.known)).to(device)[None, None].float()
        # At a soft edge, pixels of which less than half was seen have colours, too.
        color, mask = size.downscale(color * mask, mask)
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
    grey = known.new_zeros(*known.shape[:2], frames - known.shape[2], *known.shape[3:])
    return torch.cat([known, grey], dim=2)


def known_mask(known: int, frames: int, height: int, width: int) -> torch.Tensor:
    """Mark known frames by 1 in (1, 4, F, h, w) float32. The first latent has one frame, marked four times."""
    flags = torch.zeros(frames + LATENT_FRAMES - 1)
    flags[: known + LATENT_FRAMES - 1] = 1
    flags = flags.reshape(-1, LATENT_FRAMES).T
    return flags[None, :, :, None, None].expand(1, LATENT_FRAMES, flags.shape[1], height, width).contiguous()
