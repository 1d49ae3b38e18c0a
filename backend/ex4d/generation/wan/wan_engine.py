"""The engine `wan`: from rendered frames to final ones, window after window: encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ex4d.devices import Devices
from ex4d.generation.engine import EngineState, GenerationProgress, ProgressCallback
from ex4d.generation.wan import WAN_LICENCE, require_small_model
from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generation.wan.conditioning import (
    LATENT_FRAMES,
    Window,
    WindowConditioning,
    WindowPixels,
    WorkingSize,
    erosion_sides,
    image_to_video_input,
    known_mask,
    latent_count,
    split_into_windows,
    window_pixels,
)
from ex4d.generation.wan.decoding import LatentToRgb, decode_in_order, encode_video, to_uint8_images
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.encoders import files_identity
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.loaded_networks import LoadedNetworks, networks_for
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import require_diffsynth
from ex4d.generation.wan.parallel.group import RankLostError
from ex4d.generation.wan.parallel.processes import WindowWork
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d.weights.catalogue import PARTS
from ex4d.weights.notes import note_once
from ex4d.weights.places import find_adapter, find_lora, find_wan_files, lora_part
from ex4d_core.errors import RequestError
from ex4d_core.final_sizes import window_count
from ex4d_core.licences import Licence
from ex4d_core.stages import LOAD_STAGE, WARM_UP_STAGE
from ex4d_core.wan_settings import WanSettings

_Result = TypeVar("_Result")

# Seeds of a shot's windows lie far apart, so that window 1 of seed 0 is not window 0 of seed 1.
_WINDOW_SEEDS = 0x9E3779B97F4A7C15


class WanEngine:
    """The `Engine` of Wan2.1 and EX-4D.

    Attributes:
        networks: what it runs on; they stay loaded for the next job that needs the same.
    """

    name = "wan"
    licence = WAN_LICENCE

    def __init__(self, settings: WanSettings, networks: LoadedNetworks):
        self.settings = settings
        self.networks = networks

    @property
    def precision(self) -> str:
        """Of the transformer, as this machine has it: fp8 is less where a GPU has no such products."""
        return self.networks.arithmetic

    def generate(
        self,
        frames: Iterable[RenderedFrame],
        *,
        count: int | None = None,
        on_progress: ProgressCallback | None = None,
        done: int = 0,
        state: EngineState | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield one final frame for each rendered frame; see `Engine.generate`.

        It continues at the window after the last complete one, whose last frames the state has as the VAE decoded them:
        frames on disk are rounded to 8 bits, and starting from these would give other ones. A window that was
        interrupted is generated again, and what was done of it is not yielded.

        Raises:
            RequestError: frame 0 shows nothing of the footage.
            PromptError: a prompt is too long.
            GenerationError: the networks produced NaN or infinity, or memory is too small.
        """
        settings = self.settings
        for prompt, name in self._prompts():
            self.networks.tokenizer(prompt, name)  # a prompt that is too long fails before anything is rendered
        if self.precision != settings.precision:
            note_once(
                f"{self.networks.device} does not multiply in fp8 with a scale per row, so that the precision "
                f"{settings.precision} is: {self.precision}"
            )
        progress = _ProgressReporter(on_progress, settings, count)
        self.networks.on_load = progress.report_load
        size, embeds, tail = None, [], None
        kept = state.load() if state is not None else {}
        complete = 0
        if 0 < kept.get("frames", 0) <= done:
            complete, tail = kept["windows"], kept["tail"]
        for window in split_into_windows(_require_equal_sizes(frames), settings.window, settings.overlap):
            if size is None:
                first = window.frames[0]
                if not first.known.any():
                    raise _nothing_seen()
                size = WorkingSize.of(first.mask.shape[1], first.mask.shape[0], settings.max_pixels)
                self.networks.choose_mode(size.latent_shape(len(window.frames)))
                progress.report_warm_up()
                embeds = self._retry_with_less_memory(lambda: self.networks.text_embeddings(self._prompts()))
            if window.number < complete:
                continue
            latents = self._retry_with_less_memory(self._generate_latents, window, size, embeds, tail, progress)
            last_frames = []
            end = window.known + window.new
            for number, frame in enumerate(islice(self._decode(latents), end)):
                if number >= end - settings.overlap:
                    last_frames.append(frame.cpu())
                if number >= max(window.known, done - window.start):
                    yield to_uint8_images(size.upscale(frame))[0]
            # In the host's memory, since the next window needs the GPU's.
            tail = torch.cat(last_frames)
            if state is not None:
                state.save({"windows": window.number + 1, "frames": window.start + end, "tail": tail})

    def _prompts(self) -> list[tuple[str, str]]:
        """Return the prompts that are used, with their names for errors."""
        settings = self.settings
        prompts = [(settings.prompt, "prompt"), (settings.negative_prompt, "negative prompt")]
        return prompts if settings.guidance != 1 else prompts[:1]

    def _retry_with_less_memory(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """Run ``work``, again in the next smaller memory mode whenever memory runs out."""
        while True:
            try:
                return work(*arguments)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            self._use_less_memory(reason)

    def _use_less_memory(self, reason: str) -> None:
        if not self.networks.use_less_memory():
            raise GenerationError(
                f"{self.networks.device} ran out of memory, in the smallest mode too ({reason}): choose a smaller "
                "max_pixels (the preset draft has one) or a shorter window"
            )

    @torch.inference_mode()
    def _generate_latents(
        self,
        window: Window,
        size: WorkingSize,
        embeds: list[torch.Tensor],
        tail: torch.Tensor | None,
        progress: _ProgressReporter,
    ) -> torch.Tensor:
        """Encode and denoise a window; ``tail`` are the last frames of the window before, ``embeds`` the prompts'."""
        settings, networks = self.settings, self.networks
        sides = erosion_sides(window.start + len(window.frames), settings.erosion, settings.seed)[window.start :]
        pixels = window_pixels(window.frames, sides, size, networks.device)
        if window.number == 0 and not pixels.visible_fraction[0]:
            raise _nothing_seen(f" once its mask has been eroded by {sides[0]} pixels")
        conditioning, to_rgb = self._encode_window(pixels, embeds, tail)
        shown = _least_visible_latent(pixels, window.known)
        del pixels  # gigabytes for long windows of large frames

        def on_step(done: int, pred_original_sample: torch.Tensor, seconds: float) -> None:
            progress.report_step(window.number, done, seconds, lambda: to_rgb.image(pred_original_sample, shown))

        noise = self._noise(window, size)
        ranks = networks.rank_processes
        try:
            if ranks is not None:
                ranks.send(WindowWork(networks.choice, networks.mode, settings, noise, conditioning))
            transformer = networks.transformer
            if window.number == 0:
                progress.report_warm_up()  # again, since loading came between
            return denoise(
                transformer,
                noise.to(networks.device),
                conditioning,
                settings,
                precision=networks.precision,
                on_step=on_step,
                group=None if ranks is None else ranks.group,
            )
        except RankLostError as lost:
            raise (lost if ranks is None else ranks.failure(lost)) from lost
        finally:
            if ranks is not None and (ranks.group.busy or not ranks.alive):
                networks.end_rank_processes()

    def _encode_window(
        self, pixels: WindowPixels, embeds: list[torch.Tensor], tail: torch.Tensor | None
    ) -> tuple[WindowConditioning, LatentToRgb]:
        """Encode a window, which starts from the frames generated before, or else from its own first frame."""
        networks = self.networks
        known = pixels.color[:, :, :1] if tail is None else tail.transpose(0, 1)[None].to(pixels.color)
        image_embeds = networks.image_embedding(known[:, :, 0])
        frames = pixels.color.shape[2]
        vae = networks.vae
        with networks.precision():
            color = encode_video(vae, pixels.color, networks.device)
            mask = encode_video(vae, pixels.mask, networks.device)
            known_then_grey = encode_video(vae, image_to_video_input(known, frames), networks.device)
        flags = known_mask(known.shape[2], frames, *color.shape[-2:]).to(color)
        conditioning = WindowConditioning(
            prompt_embeds=embeds[0],
            negative_prompt_embeds=embeds[1] if len(embeds) > 1 else None,
            control_latents=torch.cat([color, mask], dim=1),
            image_latents=torch.cat([flags, known_then_grey], dim=1),
            image_embeds=image_embeds,
            # The VAE's encoder is causal, so these are the latents of the known frames alone.
            known_latents=None if tail is None else known_then_grey[:, :, : latent_count(known.shape[2])],
        )
        return conditioning, LatentToRgb(color, pixels.color)

    def _noise(self, window: Window, size: WorkingSize) -> torch.Tensor:
        """Draw the noise on the CPU: the same seed gives the same noise on every machine."""
        seed = (self.settings.seed + window.number * _WINDOW_SEEDS) % 2**63
        shape = (1, LATENT_CHANNELS, *size.latent_shape(len(window.frames)))
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)

    def _decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield checked frames (1, 3, H, W)."""
        while True:
            yielded = False
            try:
                for frames in decode_in_order(self.networks.vae, latents, self.networks.precision):
                    if not torch.isfinite(frames).all():
                        raise GenerationError("the VAE produced NaN or infinity: check its file with ex4d models check")
                    yielded = True
                    yield from frames.split(1)
                return
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            if yielded:
                raise GenerationError(
                    f"{self.networks.device} ran out of memory while decoding ({reason}): choose a smaller max_pixels"
                )
            self._use_less_memory(reason)


class _ProgressReporter:
    """Counts steps over all windows, and calls the callback."""

    def __init__(self, callback: ProgressCallback | None, settings: WanSettings, count: int | None):
        self._callback = callback or (lambda progress: None)
        self._steps = settings.steps
        self._total = settings.steps * (window_count(count, settings.window, settings.overlap) if count else 1)
        self._seconds: list[float] = []

    def report_load(self, done: int, total: int) -> None:
        """Report a tensor that was loaded."""
        self._callback(GenerationProgress(LOAD_STAGE, done, total))

    def report_warm_up(self) -> None:
        """Report the start of encoding and of the first step, which compiles kernels."""
        self._callback(GenerationProgress(WARM_UP_STAGE, 0, self._total))

    def report_step(self, window: int, step: int, seconds: float, image: Callable[[], np.ndarray]) -> None:
        """Report a denoising step. The first one also warms up, so it is left out of the ETA as soon as it can be."""
        self._seconds.append(seconds)
        counted = self._seconds[1:] or self._seconds
        done = window * self._steps + step
        total = max(self._total, done)
        eta = (total - done) * sum(counted) / len(counted)
        self._callback(GenerationProgress("denoise", done, total, eta, image()))


def _least_visible_latent(pixels: WindowPixels, known: int) -> int:
    """Return the latent whose frames show the least of the footage: its image changes most."""
    visible = pixels.visible_fraction
    latents = range(latent_count(known) if known else 0, latent_count(len(visible)))
    return min(latents, key=lambda index: visible[min(index * LATENT_FRAMES, len(visible) - 1)])


def _nothing_seen(when: str = "") -> RequestError:
    return RequestError(
        f"frame 0 of the shot shows nothing of the footage{when}, and the engine wan starts from it: start the camera "
        "move where the footage is visible"
    )


def _require_equal_sizes(frames: Iterable[RenderedFrame]) -> Iterator[RenderedFrame]:
    """Yield frames, and check that all have one size.

    Raises:
        GenerationError: one has another size than the first, or its colour and mask differ.
    """
    size = None
    for frame in frames:
        size = size or frame.mask.shape
        if frame.mask.shape != size or frame.color.shape != (*size, 3):
            raise GenerationError(
                f"frame {frame.index} has colour {frame.color.shape} and mask {frame.mask.shape}, but frame 0 has "
                f"{size[1]}x{size[0]} pixels: render all at one size"
            )
        yield frame


def create_wan_engine(
    settings: WanSettings,
    device: str = "auto",
    machine: MachineSettings | None = None,
    *,
    licence: Licence | None = None,
    chosen: Mapping[str, Path] | None = None,
) -> WanEngine:
    """Create the engine on a device; its weights are found, but not loaded yet.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N", or "cuda:N+M..." for several GPUs that share each shot.
        machine: the environment's settings by default.
        licence: what the result is for, by the request; see `ex4d_core.licences.effective_licence`.
        chosen: weights to use instead of those in the folder of models; see `find_wan_files`.

    Raises:
        LicenceError: the licence of some weights does not allow it.
        DeviceError: there is no such device here.
        WanUnavailableError: the model needs a GPU, or the extra is not installed.
        WeightsMissingError, CheckpointError: as in `find_wan_files`, `find_lora` and `find_adapter`.
    """
    machine = machine or MachineSettings.from_environment()
    for part in (*(part for part in PARTS if part.kind == "wan"), *(lora_part(lora.name) for lora in settings.loras)):
        # An adapter of one's own in the place of EX-4D's is one's own business, as a LoRA is.
        if part is not None and not (part.name == "ex4d" and settings.adapter):
            machine.require_allowed(part.name, part.commercial, licence, terms=part.licence, instead="--engine preview")
    if settings.adapter:
        adapter = find_adapter(machine.models, settings.adapter, machine.model_path)
        chosen = {**(chosen or {}), "ex4d": adapter}
    first, *further = Devices.parse(device).resolve().names
    if first == "cpu":
        require_small_model(lambda: find_wan_files(machine.models, chosen, machine.model_path))
    files = find_wan_files(machine.models, chosen, machine.model_path)
    loras = tuple((find_lora(machine.models, lora.name), lora.weight) for lora in settings.loras)
    require_diffsynth()
    paths = (*files.dit, *files.text_encoder, files.tokenizer, files.image_encoder, files.vae, files.ex4d)
    choice = NetworkChoice(
        files,
        loras,
        first,
        settings.precision,
        settings.fp8_attention,
        identity=files_identity(*paths, *(path for path, _ in loras)),
        further_devices=tuple(further),
        vram_limit_gb=machine.vram_limit_gb,
    )
    return WanEngine(settings, networks_for(choice))
