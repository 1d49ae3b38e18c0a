"""The `wan` engine's story, from rendered frames to finished ones: window after window, encode, denoise, decode."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ex4d.generate.engine import EngineProgress, Watch
from ex4d.generate.wan import NO_GPU, WAN_LICENCE
from ex4d.generate.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generate.wan.conditioning import (
    LATENT_FRAMES,
    WindowPixels,
    WorkingSize,
    erosion_sides,
    image_to_video_input,
    known_mask,
    latent_count,
    window_pixels,
)
from ex4d.generate.wan.decoding import LatentColors, decode_in_order, encode_video, to_pictures
from ex4d.generate.wan.denoising import Conditions, Step, denoise
from ex4d.generate.wan.encoders import identity_of
from ex4d.generate.wan.errors import CheckpointError, GenerationError, ModelsMissingError, WanUnavailableError
from ex4d.generate.wan.files import find_files, find_lora
from ex4d.generate.wan.loaded_networks import LoadedModels, ModelChoice, models_for
from ex4d.generate.wan.networks import require_diffsynth
from ex4d.generate.wan.parallel.group import RankLost
from ex4d.generate.wan.temporal_windows import Window, windows
from ex4d.machine import models_folder
from ex4d.pipeline.render import RenderedFrame
from ex4d_core.generation import window_count
from ex4d_core.shot import RequestError, WanSettings
from ex4d_core.stages import LOAD_STAGE, WARM_UP_STAGE

_Made = TypeVar("_Made")

# Seeds of a shot's windows lie far apart, so that window 1 of seed 0 is not window 0 of seed 1.
_WINDOW_SEEDS = 0x9E3779B97F4A7C15

# A transformer of more bytes than this is hopeless without a GPU: hours for each step.
_PROCESSOR_BYTES = 4 * 2**30


class WanEngine:
    """See the module's text; `Engine` in its own words.

    Attributes:
        models: what it runs on; they stay loaded for the next job that needs the same.
    """

    name = "wan"
    licence = WAN_LICENCE

    def __init__(self, settings: WanSettings, models: LoadedModels):
        self.settings = settings
        self.models = models

    def generate(
        self, frames: Iterable[RenderedFrame], *, count: int | None = None, watch: Watch | None = None
    ) -> Iterator[np.ndarray]:
        """One finished frame for each rendered frame.

        Raises:
            RequestError: frame 0 shows nothing that the footage saw, or a prompt is too long.
            GenerationError: values that are no numbers, or too little memory.
        """
        settings = self.settings
        self._check_prompts()
        progress = _Progress(watch, settings, count)
        self.models.on_load = progress.load
        size, texts, tail = None, None, None
        for window in windows(_of_one_size(frames), settings.window, settings.overlap):
            if size is None:
                first = window.frames[0]
                if not first.mask.any():
                    raise _nothing_seen()
                size = WorkingSize.of(first.mask.shape[1], first.mask.shape[0], settings.max_pixels)
                self.models.choose_mode(size, len(window.frames))
                progress.warm_up()
                texts = self._in_memory(self._text_embeddings)
            latents = self._in_memory(self._latents_once, window, size, texts, tail, progress)
            last_frames = []
            end = window.known + window.new
            for number, frame in enumerate(islice(self._decoded(latents), end)):
                if number >= end - settings.overlap:
                    last_frames.append(frame.cpu())
                if number >= window.known:
                    yield to_pictures(size.enlarge(frame))[0]
            # In the host's memory: they outlast the next window's denoising.
            tail = torch.cat(last_frames)

    def _check_prompts(self) -> None:
        """Say that a prompt is too long before anything is rendered."""
        for prompt, name in self._prompts():
            self.models.tokenize(prompt, name)

    def _prompts(self) -> list[tuple[str, str]]:
        settings = self.settings
        prompts = [(settings.prompt, "prompt"), (settings.negative_prompt, "negative prompt")]
        return prompts if settings.guidance != 1 else prompts[:1]

    def _text_embeddings(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        positive, *negative = self.models.text_embeddings(self._prompts())
        return positive, negative[0] if negative else None

    def _in_memory(self, work: Callable[..., _Made], *arguments: object) -> _Made:
        """What ``work`` makes; where memory runs out, once more in the next smaller mode."""
        while True:
            try:
                return work(*arguments)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            self._go_smaller(reason)

    def _go_smaller(self, reason: str) -> None:
        """After running out of memory: the next smaller mode, or the end."""
        if not self.models.use_less_memory():
            raise GenerationError(
                f"{self.models.device} ran out of memory, in the smallest mode too ({reason}): choose a smaller "
                "max_pixels (the preset draft has one) or a shorter window"
            )

    @torch.inference_mode()
    def _latents_once(
        self,
        window: Window,
        size: WorkingSize,
        texts: tuple[torch.Tensor, torch.Tensor | None],
        tail: torch.Tensor | None,
        progress: _Progress,
    ) -> torch.Tensor:
        """A window's latents."""
        settings, models = self.settings, self.models
        sides = erosion_sides(window.start + len(window.frames), settings.erosion, settings.seed)[window.start :]
        pixels = window_pixels(window.frames, sides, size, models.device)
        if window.number == 0 and not pixels.seen[0]:
            raise _nothing_seen(f" once its mask has shrunk by {sides[0]} pixels")
        conditions, colors = self._conditions(window, pixels, texts, tail)
        shown = _least_seen_latent(pixels, window.known)
        del pixels  # gigabytes for long windows of large frames

        def on_step(step: Step) -> None:
            progress.step(window.number, step, lambda: colors.picture(step.estimate, shown))

        noise = self._noise(window, size)
        schedule = {name: getattr(settings, name) for name in ("steps", "shift", "guidance", "tea_cache")}
        peers = models.peers
        try:
            if peers is not None:
                work = {"choice": models.choice, "mode": models.mode, "size": size, "frames": len(window.frames)}
                peers.start({**work, "schedule": schedule, "noise": noise, "conditions": conditions.to("cpu")})
            transformer = models.transformer
            if window.number == 0:
                progress.warm_up()  # again, since loading came between
            return denoise(
                transformer,
                noise.to(models.device),
                conditions,
                **schedule,
                precision=models.precision,
                on_step=on_step,
                team=None if peers is None else peers.team,
            )
        except RankLost as lost:
            raise peers.loss(lost) from lost
        finally:
            if peers is not None and (peers.team.busy or not peers.alive):
                models.end_peers()

    def _conditions(
        self,
        window: Window,
        pixels: WindowPixels,
        texts: tuple[torch.Tensor, torch.Tensor | None],
        tail: torch.Tensor | None,
    ) -> tuple[Conditions, LatentColors]:
        """Encode a window. A shot starts from its own first frame, later windows from the frames made before."""
        models = self.models
        given = pixels.color[:, :, :1] if tail is None else tail.transpose(0, 1)[None].to(pixels.color)
        picture = models.picture_embedding(given[:, :, 0])
        frames = pixels.color.shape[2]
        vae = models.vae
        with models.precision():
            color = encode_video(vae, pixels.color, models.device)
            mask = encode_video(vae, pixels.mask, models.device)
            grey_after = encode_video(vae, image_to_video_input(given, frames), models.device)
        flags = known_mask(given.shape[2], frames, *color.shape[-2:]).to(color)
        conditions = Conditions(
            positive=texts[0],
            negative=texts[1],
            camera=torch.cat([color, mask], dim=1),
            y=torch.cat([flags, grey_after], dim=1),
            clip_feature=picture,
            # The encoder looks back only, so these are what the given frames alone would become.
            known=None if tail is None else grey_after[:, :, : latent_count(given.shape[2])],
        )
        return conditions, LatentColors(color, pixels.color)

    def _noise(self, window: Window, size: WorkingSize) -> torch.Tensor:
        """Drawn on the CPU: the same seed gives the same noise on every machine."""
        seed = (self.settings.seed + window.number * _WINDOW_SEEDS) % 2**63
        shape = (1, LATENT_CHANNELS, *size.latent_shape(len(window.frames)))
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)

    def _decoded(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Frames (1, 3, H, W), each checked before anybody sees it."""
        while True:
            handed_out = False
            try:
                for part in decode_in_order(self.models.vae, latents, self.models.precision):
                    if not torch.isfinite(part).all():
                        raise GenerationError(
                            "the VAE gave values that are no numbers; check its file with ex4d models check"
                        )
                    handed_out = True
                    yield from part.split(1)
                return
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            if handed_out:
                raise GenerationError(f"{self.models.device} ran out of memory while decoding ({reason})")
            self._go_smaller(reason)


class _Progress:
    """Counts steps over all windows, and tells whoever watches."""

    def __init__(self, watch: Watch | None, settings: WanSettings, count: int | None):
        self._watch = watch
        self._steps = settings.steps
        total_windows = window_count(count, settings.window, settings.overlap) if count else 1
        self._total = settings.steps * total_windows
        self._seconds: list[float] = []
        self._started = time.monotonic()

    def load(self, done: int, total: int) -> None:
        """After each tensor that was loaded."""
        if self._watch is not None:
            self._watch(EngineProgress(LOAD_STAGE, done, total))

    def warm_up(self) -> None:
        """Before what takes longer the first time: encoding, and the first step with its kernels to be made."""
        if self._watch is not None:
            self._watch(EngineProgress(WARM_UP_STAGE, 0, self._total))

    def step(self, window: int, step: Step, picture) -> None:
        """After a step. The first one also warms up, so it counts only while it is the only one."""
        if self._watch is None:
            return
        self._seconds.append(step.seconds)
        counted = self._seconds[1:] or self._seconds
        done = window * self._steps + step.done
        total = max(self._total, done)
        left = (total - done) * sum(counted) / len(counted)
        self._watch(EngineProgress("denoise", done, total, left, picture()))


def _least_seen_latent(pixels: WindowPixels, known: int) -> int:
    """The latent whose frames show the least of the footage: there is most to watch."""
    latents = range(latent_count(known) if known else 0, latent_count(len(pixels.seen)))
    return min(latents, key=lambda index: pixels.seen[min(index * LATENT_FRAMES, len(pixels.seen) - 1)])


def _nothing_seen(when: str = "") -> RequestError:
    return RequestError(
        f"frame 0 of the shot shows nothing that the footage saw{when}, and the generator starts from it: begin the "
        "move where the footage can be seen"
    )


def _of_one_size(frames: Iterable[RenderedFrame]) -> Iterator[RenderedFrame]:
    """Pass frames on, as long as they are alike.

    Raises:
        GenerationError: one is of another size than the first, or its colour and mask differ.
    """
    size = None
    for frame in frames:
        size = size or frame.mask.shape
        if frame.mask.shape != size or frame.color.shape != (*size, 3):
            raise GenerationError(
                f"frame {frame.index} has colour {frame.color.shape} and mask {frame.mask.shape}, but frame 0 has "
                f"{size[1]}x{size[0]} pixels; all must be alike"
            )
        yield frame


def create_wan_engine(settings: WanSettings, device: str = "auto", folder: Path | None = None) -> WanEngine:
    """The engine on a device, its weights looked for but not loaded yet.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N", or "cuda:N+M..." for several GPUs that share each shot.
        folder: of models; `models_folder` by default.

    Raises:
        WanUnavailableError: no GPU, or the extra is not installed.
        ModelsMissingError, CheckpointError: as in `find_files` and `find_lora`.
    """
    folder = folder or models_folder()
    chosen, *peers = _devices(device)
    if chosen == "cpu":
        require_small_model(folder)
    files = find_files(folder)
    loras = tuple((find_lora(folder, lora.name), lora.weight) for lora in settings.loras)
    require_diffsynth()
    paths = (*files.dit, files.text_encoder, files.tokenizer, files.image_encoder, files.vae, files.ex4d)
    identity = identity_of(*paths, *(path for path, _ in loras))
    choice = ModelChoice(
        files, loras, chosen, settings.precision, settings.fp8_attention, identity=identity, peers=tuple(peers)
    )
    return WanEngine(settings, models_for(choice))


def _devices(device: str) -> list[str]:
    """ "auto", "cpu", "cuda" or "cuda:N" as one device with its number; "cuda:0+1" as both."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return ["cpu"]
    if re.fullmatch(r"cpu(\+cpu)+", device):
        return device.split("+")  # nothing is gained, but the result is the same
    if not torch.cuda.is_available():
        raise WanUnavailableError(f"PyTorch finds no GPU here, so {device} cannot be used; --engine preview needs none")
    first, *others = device.split("+")
    index = torch.device("cuda" if first == "auto" else first).index or 0
    for number in (index, *map(int, others)):
        if number >= torch.cuda.device_count():
            raise WanUnavailableError(
                f"there is no cuda:{number}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}"
            )
    return [f"cuda:{index}", *(f"cuda:{number}" for number in others)]


def require_small_model(folder: Path) -> None:
    """Without a GPU only toy models are of use.

    Raises:
        WanUnavailableError: the model is larger, or missing as well.
    """
    message = f"{NO_GPU}: take --engine preview, which runs anywhere, or --backend ADDRESS of a machine with one"
    try:
        files = find_files(folder)
    except (ModelsMissingError, CheckpointError) as error:
        raise WanUnavailableError(f"{message}. Also, {error}") from error
    if files.size("dit") > _PROCESSOR_BYTES:
        raise WanUnavailableError(message)
