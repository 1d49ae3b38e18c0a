"""Encodes samples by the networks that stay as they are in training, through the engine's own functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ex4d.devices import Devices
from ex4d.generation.wan.conditioning import WorkingSize
from ex4d.generation.wan.encoders import files_identity
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import require_diffsynth
from ex4d.generation.wan.window_encoding import WindowEncoder
from ex4d.generation.wan.windows import Window
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d.training.samples import SampleOrigin, TrainingSample
from ex4d.weights.catalogue import part
from ex4d.weights.wan_files import ENCODERS, find_encoder_files
from ex4d_core.wan_settings import Precision, WanSettings


class FrozenEncoders:
    """Text encoder, image encoder and VAE on one device; they are loaded when they are first needed."""

    def __init__(self, device: str, precision: Precision, machine: MachineSettings):
        """Find the weights.

        Raises:
            LicenceError: the machine's licence does not allow them.
            DeviceError: there is no such device here.
            WanUnavailableError: the extra `wan` is not installed.
            WeightsMissingError, CheckpointError: as in `ex4d.weights.wan_files.find_encoder_files`.
        """
        for name in ENCODERS:
            entry = part(name)
            machine.require_allowed(name, entry.commercial, None, terms=entry.licence)
        files = find_encoder_files(machine.models, machine.model_path)
        require_diffsynth()
        paths = (*files.text_encoder, files.tokenizer, files.image_encoder, files.vae)
        self.identity = files_identity(*paths)
        first = Devices.parse(device).single().resolve().first
        choice = NetworkChoice(files, (), first, precision, identity=self.identity, vram_limit_gb=machine.vram_limit_gb)
        self._networks = LoadedNetworks(choice)

    def require_short(self, captions: Sequence[str]) -> None:
        """Raise PromptError for the first caption that the text encoder cannot take whole."""
        for caption in captions:
            self._networks.tokenizer(caption, "caption")

    @torch.inference_mode()
    def encode(
        self, origin: SampleOrigin, frames: np.ndarray, seen: np.ndarray, settings: WanSettings
    ) -> TrainingSample:
        """Encode one sample.

        Args:
            origin: of the sample; its unseen share is replaced by that of the mask as the networks are given it.
            frames: (T, H, W, 3) uint8 sRGB, the source.
            seen: (T, H, W) bool, the mask.
            settings: of the engine: erosion, its seed, and conditioning.

        Raises:
            RequestError: the mask hides all of frame 0.
            SampleError: an encoder gives NaN or infinity.
        """
        count, height, width = seen.shape
        size, networks = WorkingSize(width, height, width, height), self._networks
        far = np.zeros((height, width), np.float32)  # which is not looked at
        rendered = tuple(
            RenderedFrame(index, frames[index] * seen[index][..., None], seen[index], far) for index in range(count)
        )
        encoder = WindowEncoder(networks, settings)
        pixels = encoder.pixels(Window(0, rendered, 0, count), size)
        embeds = networks.text_embeddings([(origin.caption, "caption")])
        conditioning, _ = encoder.encode(pixels, embeds, None)
        video = torch.from_numpy(frames).to(networks.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        tensors = {
            "target_latents": encoder.latents_of(video, count),
            "control_latents": conditioning.control_latents,
            "image_latents": conditioning.image_latents,
            "prompt_embeds": conditioning.prompt_embeds,
            "image_embeds": conditioning.image_embeds,
        }
        dtype = networks.choice.dtype
        unseen = min(1.0, max(0.0, 1 - float(np.mean(pixels.visible_fraction))))
        described = SampleOrigin.from_wire({**origin.to_wire(), "unseen": unseen})
        return TrainingSample(described, **{name: tensor[0].to("cpu", dtype) for name, tensor in tensors.items()})
