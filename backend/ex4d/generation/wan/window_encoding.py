"""Encodes a window: its frames to pixels at the working size, and these to all that the transformer is given."""

from __future__ import annotations

import torch

from ex4d.generation.wan.conditioning import (
    WindowConditioning,
    WindowPixels,
    WorkingSize,
    erosion_sides,
    image_to_video_input,
    known_mask,
    latent_count,
    window_pixels,
)
from ex4d.generation.wan.decoding import LatentToRgb, encode_video
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.encoders import files_identity
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.windows import Window, WindowEnd
from ex4d_core.errors import RequestError
from ex4d_core.wan_settings import WanSettings


class WindowEncoder:
    """Encodes windows of one shot on the engine's networks."""

    def __init__(self, networks: LoadedNetworks, settings: WanSettings):
        self._networks, self._settings = networks, settings
        self._known = settings.conditioning == "known"

    def pixels(self, window: Window, size: WorkingSize) -> WindowPixels:
        """A window's frames at the working size, eroded.

        Raises:
            RequestError: frame 0 of the shot shows nothing.
        """
        settings = self._settings
        seed = settings.seed if settings.erosion_seed is None else settings.erosion_seed
        sides = erosion_sides(window.start + len(window.frames), settings.erosion, seed)[window.start :]
        whole_first = self._known and window.number == 0
        pixels = window_pixels(window.frames, sides, size, self._networks.device, whole_first=whole_first)
        if window.number == 0 and not pixels.visible_fraction[0]:
            raise nothing_seen(f" once its mask has been eroded by {sides[0]} pixels")
        return pixels

    def encode(
        self, pixels: WindowPixels, embeds: list[torch.Tensor], before: WindowEnd | None
    ) -> tuple[WindowConditioning, LatentToRgb]:
        """Encode a window, which starts from the frames generated before, or else from its own first frame."""
        networks = self._networks
        if before is None:
            known = pixels.color[:, :, :1]
        else:
            known = before.frames.transpose(0, 1)[None].to(pixels.color)
            if self._known:
                pixels = pixels.with_known(known)
        first, frames, files = known[:, :, 0], pixels.color.shape[2], networks.choice.files
        owner = "image encoder", files_identity(files.image_encoder), networks.choice.dtype
        image_embeds = encodes.find_or_make(owner, first, lambda: networks.image_embedding(first))
        color = self.latents_of(pixels.color, frames)
        mask = self.latents_of(pixels.mask, frames)
        known_then_grey = self.latents_of(known, frames)
        # The VAE's encoder is causal, so these are the latents of the known frames alone.
        known_latents = known_then_grey[:, :, : latent_count(known.shape[2])]
        if before is not None and before.latents is not None:
            known_latents[:, :, 1:] = self._carried_latents(before, known_latents)
        flags = known_mask(known.shape[2], frames, *color.shape[-2:]).to(color)
        conditioning = WindowConditioning(
            prompt_embeds=embeds[0],
            negative_prompt_embeds=embeds[1] if len(embeds) > 1 else None,
            control_latents=torch.cat([color, mask], dim=1),
            image_latents=torch.cat([flags, known_then_grey], dim=1),
            image_embeds=image_embeds,
            known_latents=None if before is None else known_latents,
        )
        return conditioning, LatentToRgb(color, pixels.color)

    def _carried_latents(self, before: WindowEnd, encoded: torch.Tensor) -> torch.Tensor:
        """The latents of the window before, of all known frames but the first, whose latent has earlier ones, too.

        Where colours were held, they move by as much as the encodings of the frames with and without that differ: what
        encoding loses is in both.

        Args:
            encoded: (1, 16, F, h, w), of the known frames.
        """
        assert before.latents is not None, "conditioning is known"
        carried = before.latents[:, :, 1:].to(encoded)
        if before.decoded is None:
            return carried
        decoded = before.decoded.transpose(0, 1)[None].to(self._networks.device)
        return carried + encoded[:, :, 1:] - self.latents_of(decoded, decoded.shape[2])[:, :, 1:]

    def latents_of(self, video: torch.Tensor, frames: int) -> torch.Tensor:
        """Latents (1, 16, F, h, w) of a video (1, 3, T, H, W) that goes on in mid grey up to ``frames``.

        They are kept, see `encode_cache`.
        """
        networks = self._networks
        owner = "vae", files_identity(networks.choice.files.vae), networks.choice.dtype, frames

        def encode() -> torch.Tensor:
            with networks.precision():
                filled = image_to_video_input(video, frames)
                return encode_video(networks.vae, filled, networks.device, networks.on_encode)

        # A mask's channels are one in memory.
        content = (video[:, :1] if video.stride(1) == 0 else video).to(networks.choice.dtype)
        return encodes.find_or_make(owner, content, encode)


def nothing_seen(when: str = "") -> RequestError:
    """The error of a shot whose frame 0 the engine cannot start from."""
    return RequestError(
        f"frame 0 of the shot shows nothing of the footage{when}, and the engine wan starts from it: start the camera "
        "move where the footage is visible"
    )
