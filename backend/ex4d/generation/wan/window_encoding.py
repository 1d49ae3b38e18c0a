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
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.windows import Window, WindowEnd
from ex4d.generation.wan.work_parts import PartCallback
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
        image_embeds = networks.image_embedding(known[:, :, 0])
        frames = pixels.color.shape[2]
        vae = networks.vae
        with networks.precision():
            on_part = [_share(networks.on_encode, number, 3) for number in range(3)]
            color = encode_video(vae, pixels.color, networks.device, on_part[0])
            mask = encode_video(vae, pixels.mask, networks.device, on_part[1])
            known_then_grey = encode_video(vae, image_to_video_input(known, frames), networks.device, on_part[2])
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
        networks = self._networks
        decoded = before.decoded.transpose(0, 1)[None].to(networks.device)
        with networks.precision():
            return carried + encoded[:, :, 1:] - encode_video(networks.vae, decoded, networks.device)[:, :, 1:]


def _share(callback: PartCallback | None, number: int, count: int) -> PartCallback | None:
    """A callback of the ``number``-th of ``count`` equal works, which reports all of them as one."""
    return callback and (lambda done, total: callback(number * total + done, count * total))


def nothing_seen(when: str = "") -> RequestError:
    """The error of a shot whose frame 0 the engine cannot start from."""
    return RequestError(
        f"frame 0 of the shot shows nothing of the footage{when}, and the engine wan starts from it: start the camera "
        "move where the footage is visible"
    )
