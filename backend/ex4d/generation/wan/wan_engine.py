"""The engine `wan`: from rendered frames to final ones, window after window: encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ex4d.devices import Devices
from ex4d.generation.engine import EngineState, ProgressCallback, UnroundedCallback
from ex4d.generation.wan import WAN_LICENCE, require_small_model
from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generation.wan.color_hold import ColorHold
from ex4d.generation.wan.conditioning import LATENT_FRAMES, WindowPixels, WorkingSize, latent_count
from ex4d.generation.wan.decoding import to_float_images, to_uint8_images
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.encoders import files_identity
from ex4d.generation.wan.enlarging import INTERPOLATION, Enlarger, create_enlarger
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.kernels.attention_choice import require_attention
from ex4d.generation.wan.loaded_networks import LoadedNetworks, networks_for
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import require_diffsynth
from ex4d.generation.wan.parallel.group import RankLostError
from ex4d.generation.wan.parallel.processes import WindowWork
from ex4d.generation.wan.progress_report import ProgressReporter
from ex4d.generation.wan.tiny_decoder import TinyDecoder, load_tiny_decoder
from ex4d.generation.wan.window_encoding import WindowEncoder, nothing_seen
from ex4d.generation.wan.windows import Window, WindowEnd, lengths_of_windows, split_into_windows
from ex4d.generation.wan.work_parts import AHEAD_OF_BLOCKS, WorkParts, reported_calls
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d.weights.catalogue import PARTS
from ex4d.weights.converted import converted_weights
from ex4d.weights.errors import CheckpointError
from ex4d.weights.notes import note_once
from ex4d.weights.places import find_adapter, find_lora, find_tiny_decoder, lora_part
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.final_sizes import generation_size
from ex4d_core.licences import Licence
from ex4d_core.wan_settings import WanSettings

_Result = TypeVar("_Result")

# Seeds of a shot's windows lie far apart, so that window 1 of seed 0 is not window 0 of seed 1.
_WINDOW_SEEDS = 0x9E3779B97F4A7C15


class WanEngine:
    """The `Engine` of Wan2.1 and EX-4D.

    Attributes:
        networks: what it runs on; they stay loaded for the next job that needs the same.
        encoder: of the windows.
        tiny_decoder: of the images of steps and, with the setting of that name, of the frames; None without its file.
        enlarging: how frames get to the take's size, for people.
    """

    name = "wan"
    licence = WAN_LICENCE

    def __init__(
        self,
        settings: WanSettings,
        networks: LoadedNetworks,
        enlarger: Enlarger = INTERPOLATION,
        tiny_decoder: TinyDecoder | None = None,
    ):
        self.settings = settings
        self.enlarging = enlarger.name
        self._enlarger = enlarger
        self.tiny_decoder = tiny_decoder
        self.networks = networks
        self.encoder = WindowEncoder(networks, settings)

    @property
    def precision(self) -> str:
        """Of the transformer, as this machine has it: fp8 is less where a GPU has no such products."""
        return self.networks.arithmetic.words

    def generate(
        self,
        frames: Iterable[RenderedFrame],
        *,
        count: int | None = None,
        on_progress: ProgressCallback | None = None,
        done: int = 0,
        state: EngineState | None = None,
        on_unrounded: UnroundedCallback | None = None,
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
        for shortfall in self.networks.arithmetic.shortfalls(str(self.networks.device)):
            note_once(shortfall)
        if settings.tiny_decoder and self.tiny_decoder is None:
            note_once("no tiny decoder is here, so that the VAE decodes: fetch it with ex4d models fetch tiny_decoder")
        progress = ProgressReporter(on_progress, settings, count, self.precision)
        self.networks.on_load = progress.report_load
        self.networks.on_encode, self.networks.on_decode = progress.report_encode, progress.report_decode
        size, embeds, end = None, [], None
        kept = state.load() if state is not None else {}
        complete = 0
        if 0 < kept.get("frames", 0) <= done:
            complete, end = kept["windows"], WindowEnd.from_state(kept)
        lengths = lengths_of_windows(count, settings)
        for window in split_into_windows(_require_equal_sizes(frames), lengths, settings.overlap):
            if size is None:
                first = window.frames[0]
                if not first.known.any():
                    raise nothing_seen()
                size = self._working_size(first)
                self.networks.choose_mode(size.latent_shape(len(window.frames)))
                progress.report_warm_up()
                embeds = self._retry_with_less_memory(lambda: self.networks.text_embeddings(self._prompts()))
            if window.number < complete:
                continue
            latents, hold = self._retry_with_less_memory(self._generate_latents, window, size, embeds, end, progress)
            real = window.known + window.new
            last_frames, last_decoded = [], []
            for number, (decoded, frame) in enumerate(islice(self._held(latents, hold, window.known), real)):
                if number >= real - settings.overlap:
                    last_frames.append(frame.cpu())
                    if hold is not None:
                        last_decoded.append(decoded.cpu())
                if number >= max(window.known, done - window.start):
                    shown = size.upscale(frame, self._enlarger)
                    if on_unrounded is not None:
                        on_unrounded(to_float_images(shown)[0])
                    yield to_uint8_images(shown)[0]
            end = WindowEnd(torch.cat(last_frames))
            if hold is not None:
                shared = latent_count(settings.overlap)
                end = WindowEnd(
                    end.frames,
                    latents[:, :, -shared:].cpu(),
                    torch.cat(last_decoded) if hold.changes else None,
                    hold.reference,
                )
            if state is not None:
                state.save({"windows": window.number + 1, "frames": window.start + real, **end.to_state()})

    def _working_size(self, frame: RenderedFrame) -> WorkingSize:
        height, width = frame.mask.shape
        return WorkingSize(width, height, *generation_size(self.settings, width, height, frame.pixel_aspect))

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
        before: WindowEnd | None,
        progress: ProgressReporter,
    ) -> tuple[torch.Tensor, ColorHold | None]:
        """Encode and denoise a window, after the one ``before``; ``embeds`` are the prompts'.

        Returns:
            The latents, and what holds the frames' colours, with conditioning "known".
        """
        settings, networks = self.settings, self.networks
        pixels = self.encoder.pixels(window, size)
        hold = None
        if settings.conditioning == "known":
            reference = None if before is None else before.color
            hold = ColorHold(pixels.color, pixels.mask, reference, first=window.number == 0)
        conditioning, to_rgb = self.encoder.encode(pixels, embeds, before)
        shown = _least_visible_latent(pixels, window.known)
        del pixels  # gigabytes for long windows of large frames

        steps = 0
        put_off: list[BaseException] = []

        def on_block(done: int, total: int) -> None:
            if put_off:
                return
            try:
                progress.report_part(window.number, steps, done, total)
            except BaseException as error:
                # The other ranks are in the middle of this step, and can only be stopped after it.
                if ranks is None:
                    raise
                put_off.append(error)

        def on_step(done: int, pred_original_sample: torch.Tensor, seconds: float) -> None:
            nonlocal steps
            steps = done
            parts.restart()
            if put_off:
                raise put_off[0]
            sketch = self.tiny_decoder or to_rgb
            progress.report_step(window.number, done, seconds, lambda: sketch.image(pred_original_sample, shown))

        noise = self._noise(window, size)
        ranks = networks.rank_processes
        try:
            if ranks is not None:
                ranks.send(WindowWork(networks.choice, networks.mode, settings, noise, conditioning))
            transformer = networks.transformer
            if window.number == 0:
                progress.report_warm_up()  # again, since loading came between
            parts = WorkParts(on_block, len(transformer.blocks), networks.device, AHEAD_OF_BLOCKS)
            with reported_calls(transformer.blocks, parts):
                latents = denoise(
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
        return latents, hold

    def _noise(self, window: Window, size: WorkingSize) -> torch.Tensor:
        """Draw the noise on the CPU: the same seed gives the same noise on every machine."""
        seed = (self.settings.seed + window.number * _WINDOW_SEEDS) % 2**63
        shape = (1, LATENT_CHANNELS, *size.latent_shape(len(window.frames)))
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)

    def _held(
        self, latents: torch.Tensor, hold: ColorHold | None, known: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each frame (1, 3, H, W) as it is decoded, and with its colours held if it is not ``known``."""
        start = 0
        for frames in self._decode(latents):
            held = frames if hold is None or start < known else hold.hold(start, frames)
            yield from zip(frames.split(1), held.split(1), strict=True)
            start += len(frames)

    def _decoder(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        if self.tiny_decoder is not None and self.settings.tiny_decoder:
            return self.tiny_decoder.decode_in_order(latents)
        return self.networks.decode(latents)

    def _decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield checked frames (n, 3, H, W), those of one latent after the other."""
        yielded = 0
        while True:
            try:
                for frames in islice(self._decoder(latents), yielded, None):
                    if not torch.isfinite(frames).all():
                        raise GenerationError("the VAE produced NaN or infinity: check its file with ex4d models check")
                    yielded += 1
                    yield frames
                return
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            if self.networks.decode_alone():
                note_once(f"memory ran out in decoding ({reason}): {self.networks.device} decodes alone")
                continue
            if yielded:
                raise GenerationError(
                    f"{self.networks.device} ran out of memory while decoding ({reason}): choose a smaller max_pixels"
                )
            self._use_less_memory(reason)


def _least_visible_latent(pixels: WindowPixels, known: int) -> int:
    """Return the latent whose frames show the least of the footage: its image changes most."""
    visible = pixels.visible_fraction
    latents = range(latent_count(known) if known else 0, latent_count(len(visible)))
    return min(latents, key=lambda index: visible[min(index * LATENT_FRAMES, len(visible) - 1)])


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
        WeightsMissingError, CheckpointError: as in `find_wan_files`, `find_lora`, `find_adapter` and `create_enlarger`.
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
    loras = tuple((find_lora(machine.models, lora.name, machine.model_path), lora.weight) for lora in settings.loras)
    enlarger = create_enlarger(settings.upscaler, machine.models, first)
    require_diffsynth()
    require_attention(settings.attention, first)
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
        converted=converted_weights(machine),
    )
    return WanEngine(settings, networks_for(choice), enlarger, _tiny_decoder(machine, choice))


def _tiny_decoder(machine: MachineSettings, choice: NetworkChoice) -> TinyDecoder | None:
    """The tiny decoder, where its file is here and whole: a take does not need it."""
    path = find_tiny_decoder(machine.models, machine.model_path)
    if path is None:
        return None
    try:
        return load_tiny_decoder(path, device=choice.device, dtype=choice.dtype)
    except CheckpointError as error:
        note_once(f"the tiny decoder is not used: {error}")
        return None
