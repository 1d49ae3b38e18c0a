"""DepthCrafter's denoiser: Stable Video Diffusion's UNet, conditioned on every frame by itself.

The blocks are those of `diffusers`; what differs from Stable Video Diffusion is that each frame brings its own image
embedding as context, where Stable Video Diffusion repeats one embedding over the clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel


class DepthCrafterUNet(UNetSpatioTemporalConditionModel):
    """Predicts the velocity of depth latents. Weights and configuration are laid out as diffusers' own class.

    Attributes:
        between_blocks: called before each block; it may raise, which ends the pass within a second or so.
    """

    between_blocks: Callable[[], None] = staticmethod(lambda: None)

    @property
    def blocks(self) -> int:
        """How often `between_blocks` is called in a pass."""
        return len(self.down_blocks) + 1 + len(self.up_blocks)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, latents: torch.Tensor, timestep: torch.Tensor, image_embeddings: torch.Tensor, time_ids: torch.Tensor
    ) -> torch.Tensor:
        """One pass over a window.

        Args:
            latents: (B, T, 8, h, w), scaled noisy depth latents and the frames' own latents, concatenated.
            timestep: scalar, continuous.
            image_embeddings: (B, T, C), one for each frame.
            time_ids: (B, 3): frames a second less one, motion bucket, noise augmentation.

        Returns:
            (B, T, 4, h, w).
        """
        batch, frames = latents.shape[:2]
        hidden = self.conv_in(latents.flatten(0, 1))
        common = {
            "temb": self._embedded_time(timestep, time_ids, hidden.dtype).repeat_interleave(frames, dim=0),
            # Whether a batch holds images rather than clips, which mixes the temporal layers out.
            "image_only_indicator": hidden.new_zeros(batch, frames),
        }
        context = {"encoder_hidden_states": image_embeddings.flatten(0, 1)[:, None]}

        skips = [hidden]
        for block in self.down_blocks:
            self.between_blocks()
            hidden, outputs = block(hidden, **common, **(context if _attends(block) else {}))
            skips.extend(outputs)
        self.between_blocks()
        hidden = self.mid_block(hidden, **common, **context)
        for block in self.up_blocks:
            self.between_blocks()
            count = _skips(block)
            skips, used = skips[:-count], tuple(skips[-count:])
            # A size that halves unevenly on the way down must come back as it was; the next skip knows it.
            size = skips[-1].shape[2:] if skips else None
            extra = context if _attends(block) else {}
            hidden = block(hidden, res_hidden_states_tuple=used, upsample_size=size, **common, **extra)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, (batch, frames))

    def _embedded_time(self, timestep: torch.Tensor, time_ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B, 4 C): the timestep and the clip's time ids, embedded and added. Sinusoids are computed in float32."""
        timesteps = self.time_proj(timestep.expand(len(time_ids))).to(dtype)
        added = self.add_time_proj(time_ids.flatten()).reshape(len(time_ids), -1).to(dtype)
        return self.time_embedding(timesteps) + self.add_embedding(added)


def _skips(block: Any) -> int:
    """How many of the skips an up block uses."""
    return len(block.resnets)


def _attends(block: torch.nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
