"""Whether an adapter that is trained on single clips learns geometry: `ex4d bench train --part learning`.

A small Wan is first trained as an image-to-video model on procedural clips, then frozen. Adapters (LoRA and camera
encoder) are trained on the same clips, under simulated masks or under rectangles. All are measured on true new views of
other scenes, which no training has seen. A folder keeps what is done, so that the next call continues.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from bench.learning_sizes import SHIFT, Experiment
from bench.measuring import Row, wait_for_gpu
from bench.new_view_task import NewViewTask, Score, conditioning_of, new_view_task, to_video
from bench.packed_clips import PackedTransformer, clip_of, packed_dataset, stacked_clips
from bench.random_weights import small_dit_sizes
from bench.toy_clips import (
    random_clips,
    rectangular_masks,
    simulated_masks,
)
from bench.trained_toy import LinearCodec, train_by_flow_matching
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.networks import open_dit
from ex4d.generation.wan.transformer import Recomputation, Transformer
from ex4d.media import write_png
from ex4d.training.adapter import Building, build_trained, count_parameters
from ex4d.training.export import export_adapter_file
from ex4d.training.mask_settings import MoveSettings
from ex4d.training.ranks import accelerator_of
from ex4d.training.run_folder import RunConfig, RunFolder
from ex4d.training.trainer import OnStep, Trainer, training_precision
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import RequestError
from ex4d_core.wan_settings import wan_preset

Masks = Literal["simulated", "rectangles"]
MASKS: tuple[Masks, ...] = ("simulated", "rectangles")

# Of the adapter with simulated masks: in dB, over the frozen base in seen pixels, and over the one with rectangles in
# holes; and its share of the base's parameters.
SEEN_TARGET, HOLE_TARGET, SHARE_TARGET = 6.0, 2.0, 0.02

# Blocks of 4 frames of 2x2 pixels become 16 numbers.
_BLOCK_SIDE = 2
_WHITENING = 0.3
_SAMPLER = replace(wan_preset("ex4d-reference"), steps=16, guidance=1.0, shift=SHIFT)
_CLIPS_SEED = 1
# Of the masks of training: about the moves of the evaluated views, whose cameras are drawn from another distribution.
_MOVES = MoveSettings(
    orbit=(-60.0, 60.0), elevation=(-10.0, 10.0), zoom=(0.9, 1.1), reach=(0.1, 0.4), samples=1, morphology=(0, 0)
)
_TRACKED_SHARE = 0.3
# Clips on the sheet, and how many times their pixels are enlarged.
_SHOWN, _ENLARGED = 8, 2
# Between two looks at the clock.
_STEPS_AT_ONCE = 50


class Learning:
    """The experiment in a folder: what is done is not done again."""

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device):
        self.experiment, self.folder, self.device = experiment, folder, device
        self._dtype = torch.float32 if experiment.settings.precision == "float32" else torch.bfloat16
        folder.mkdir(parents=True, exist_ok=True)
        _require_same(experiment, folder / "experiment.txt")
        self.clips = random_clips(experiment.clips, experiment.frames, experiment.side, _CLIPS_SEED, device)
        self._video = to_video(self.clips.color)
        self.codec = LinearCodec(self._video[:256].cpu(), _BLOCK_SIDE, _WHITENING).to(device)

    @property
    def base(self) -> Path:
        """The frozen base's file."""
        return self.folder / "base.safetensors"

    def train_base(self, deadline: float = math.inf) -> list[float]:
        """Train the base, or continue, and write it once it is done; returns the losses of the steps that are done.

        Args:
            deadline: of `time.monotonic`, after which training stops with its state kept.
        """
        from diffsynth.models.wan_video_dit import WanModel

        size = self.experiment
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            dit = WanModel(**small_dit_sizes(size.heads, size.layers, size.ffn))
        torch.nn.init.zeros_(dit.head.head.weight)
        seen = torch.ones(self.clips.color.shape[:-1], dtype=torch.bool, device=self.device)
        inputs = conditioning_of(self.codec, self._video, seen)
        losses = train_by_flow_matching(
            dit.to(self.device),
            self.codec.encode(self._video),
            inputs,
            inputs.prompt_embeds[:1],
            steps=size.base_steps,
            generator=torch.Generator().manual_seed(0),
            batch=size.base_batch,
            learning_rate=size.base_rate,
            shift=SHIFT,
            state=(state := self.base.with_suffix(".state")),
            deadline=deadline,
        )
        if len(losses) == size.base_steps:
            _write(dit.state_dict(), self.base)
            state.unlink(missing_ok=True)
        return losses

    def simulated(self, seed: int) -> list[torch.Tensor]:
        """Simulated masks (B, T, H, W) of all clips, ``experiment.masks`` times; from the folder, where it has them.

        Rectangles hide as much as they do, so that both kinds of runs need them.
        """
        found = []
        for number in range(self.experiment.masks):
            drawn = _mask_seed(seed, number)
            path = self.folder / f"masks-{drawn}.safetensors"
            if not path.exists():
                _write({"seen": simulated_masks(self.clips, _MOVES, _TRACKED_SHARE, drawn)}, path)
            found.append(load_file(path, str(self.device))["seen"])
        return found

    def masked(self, masks: Masks, seed: int) -> tuple[torch.Tensor, WindowConditioning]:
        """Latents and conditioning of all pairs: each clip under some masks of a kind."""
        parts = []
        for number, mask in enumerate(self.simulated(seed)):
            if masks == "rectangles":
                shares = 1 - mask.float().mean(dim=(1, 2, 3))
                drawn = _mask_seed(seed, number)
                mask = rectangular_masks(shares.cpu(), *mask.shape[1:3], drawn).to(self.device)
            parts.append(conditioning_of(self.codec, self._video, mask))
        latents = self.codec.encode(self._video)
        return torch.cat([latents] * len(parts)), stacked_clips(parts)

    def trainer(self, masks: Masks, seed: int, on_step: OnStep | None = None) -> Trainer:
        """A run of the project's trainer, at the state that its folder has."""
        size, folder = self.experiment, RunFolder(self.folder / f"{masks}-{seed}")
        settings = replace(size.settings, seed=seed)
        latents, conditioning = self.masked(masks, seed)
        dataset = packed_dataset(
            latents,
            conditioning,
            size.pack,
            side=size.side,
            mask="rendered" if masks == "simulated" else "other",
            made_of=f"{masks} {seed} {size}",
        )
        config = RunConfig(settings, size.shape, dataset.location, dataset.manifest.identity, _identity(self.base))
        if folder.exists:
            folder.require_same(config)
        else:
            folder.start(config)
        dit, blocks = open_dit([self.base], None, device=self.device, dtype=self._dtype)
        building = Building(size.shape, seed, recomputation=Recomputation(checkpointing=False))
        model = PackedTransformer(build_trained(dit, blocks, building, device=self.device), size.pack)
        return Trainer(model, dataset, config, folder, accelerator_of(str(self.device)), on_step)

    def run(self, masks: Masks, seed: int, deadline: float = math.inf, on_step: OnStep | None = None) -> int:
        """Train an adapter, or continue, and write it as a file with the published names once it is done.

        Args:
            deadline: of `time.monotonic`, after which the run stops with its state kept.

        Returns:
            The steps that are done.
        """
        trainer = self.trainer(masks, seed, on_step)
        while trainer.step < trainer.settings.steps and time.monotonic() < deadline:
            trainer.run(trainer.step + _STEPS_AT_ONCE)
        if trainer.step == trainer.settings.steps:
            export_adapter_file(trainer.folder, self.adapter(masks, seed), overwrite=True)
        return trainer.step

    def adapter(self, masks: Masks, seed: int) -> Path:
        """A finished adapter's file."""
        return self.folder / f"{masks}-{seed}.safetensors"

    def task(self) -> NewViewTask:
        """The new views that all models are measured on."""
        size = self.experiment
        return new_view_task(size.evaluated, size.frames, size.side, self.codec, self.device)

    def generated(self, task: NewViewTask, adapter: Path | None) -> torch.Tensor:
        """(B, 3, T, H, W) in [-1, 1], made by the engine's own sampler; without an adapter, by the frozen base."""
        dit, blocks = open_dit([self.base], adapter, device=self.device, dtype=self._dtype)
        transformer = Transformer(dit, blocks, device=self.device)
        with torch.inference_mode():
            latents = [
                denoise(
                    transformer,
                    task.noise[index : index + 1],
                    clip_of(task.conditioning, index),
                    _SAMPLER,
                    precision=partial(training_precision, self.device, self.experiment.settings.precision),
                )
                for index in range(len(task.noise))
            ]
        return self.codec.decode(torch.cat(latents))

    def score(self, name: str, task: NewViewTask, adapter: Path | None) -> Score:
        """The score of an adapter, or of the frozen base, from the folder if it is there."""
        path = self.folder / "scores.json"
        scores = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if name not in scores:
            video = self.generated(task, adapter)
            scores[name] = asdict(task.score(video))
            torch.save(video[:_SHOWN].cpu(), self.folder / f"{name}.views")
            partial_path = path.with_suffix(".partial")
            partial_path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
            put_in_place(partial_path, path)
        return Score(**scores[name])

    def write_sheet(self, task: NewViewTask, names: Sequence[str]) -> Path:
        """Write the first clips' last frames: columns of the truth, what is given, and the results' ``names``."""
        given = task.given[:_SHOWN, -1].cpu()
        columns = [task.truth[:_SHOWN, -1].cpu(), given]
        for name in names:
            video = torch.load(self.folder / f"{name}.views")
            columns.append(((video[:, :, -1] + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
        sheet = torch.cat([torch.cat(list(column)) for column in columns], dim=1).numpy()
        path = self.folder / "views.png"
        write_png(path, sheet.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1))
        return path

    def parameters(self) -> tuple[int, int]:
        """How many the base and the adapter have."""
        size = self.experiment
        tensors = load_file(self.base)
        own = count_parameters(size.shape, width=128 * size.heads, ffn=size.ffn, blocks=size.layers)
        return sum(tensor.numel() for tensor in tensors.values()), sum(own.values())


def measure_learning(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    *,
    seeds: int = 3,
    minutes: float = math.inf,
    processes: int = 1,
) -> Iterator[Row]:
    """Train what the folder lacks, and yield a row for everything that is measured; see `Learning`.

    Args:
        processes: that train adapters at the same time. Each alone leaves most of a GPU idle between its small kernels.
    """
    began, deadline = time.monotonic(), time.monotonic() + 60 * minutes
    learning = Learning(experiment, folder, device)
    yield Row("clips", str(experiment.clips), f"{experiment.frames} frames, {experiment.side} pixels; {_since(began)}")
    if not learning.base.exists():
        started = time.monotonic()
        losses = learning.train_base(deadline)
        if len(losses) < experiment.base_steps:
            where = f"of {experiment.base_steps} steps of the base"
            yield Row("stopped", f"{len(losses)} steps", f"{where}: the same command and --scratch {folder} continue")
            return
        last = statistics.mean(losses[-max(1, len(losses) // 10) :])
        steps = f"{experiment.base_steps} steps of {experiment.base_batch}"
        yield Row("base", f"loss {last:.3f}", f"at first {losses[0]:.3f}; {steps}; {_since(started)}")
    of_base, of_adapter = learning.parameters()
    share = of_adapter / of_base
    target = f"of {of_base / 1e6:.2f} million; target at most {SHARE_TARGET:.0%}"
    yield Row("adapter", f"{share:.2%}", f"{of_adapter:,} parameters {target}")
    task = learning.task()
    unseen = 1 - task.given_mask[:, 1:].float().mean().item()
    yield Row("new views", str(len(task.noise)), f"of other scenes; {unseen:.0%} of their pixels unseen")
    frozen = learning.score("frozen", task, None)
    if processes > 1 and (missing := [own for own in _adapters(seeds) if not learning.adapter(*own).exists()]):
        started = time.monotonic()
        _train_side_by_side(learning, missing, deadline, processes)
        yield Row("adapters", f"{_since(started)}", f"{len(missing)}, trained in {processes} processes")
    scores: dict[Masks, list[Score]] = {masks: [] for masks in MASKS}
    for seed in range(seeds):
        for masks in MASKS:
            started, adapter = time.monotonic(), learning.adapter(masks, seed)
            if not adapter.exists() and (done := learning.run(masks, seed, deadline)) < experiment.settings.steps:
                where = f"of {experiment.settings.steps} steps of {masks}, seed {seed}"
                yield Row("stopped", f"{done} steps", f"{where}: the same command and --scratch {folder} continue")
                return
            score = learning.score(f"{masks}-{seed}", task, adapter)
            scores[masks].append(score)
            yield Row(
                f"{masks}, seed {seed}", f"{score.seen:.2f} dB", f"seen; holes {score.holes:.2f}; {_since(started)}"
            )
    yield from summary(frozen, scores)
    sheet = learning.write_sheet(task, ("frozen", *(f"{masks}-0" for masks in MASKS)))
    yield Row("sheet", sheet.name, f"in {folder}: truth, given, frozen base, simulated masks, rectangles")


def _adapters(seeds: int) -> list[tuple[Masks, int]]:
    return [(masks, seed) for seed in range(seeds) for masks in MASKS]


def _train_side_by_side(
    learning: Learning, adapters: Sequence[tuple[Masks, int]], deadline: float, processes: int
) -> None:
    """Train adapters in processes of their own, until they are done or the deadline of `time.monotonic` is over."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    train = partial(_train_adapter, learning.experiment, learning.folder, learning.device, deadline)
    make_masks = partial(_make_masks, learning.experiment, learning.folder, learning.device)
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        # First, since both runs of a seed need them.
        list(pool.map(make_masks, sorted({seed for _, seed in adapters})))
        list(pool.map(train, adapters))


def _make_masks(experiment: Experiment, folder: Path, device: torch.device, seed: int) -> None:
    Learning(experiment, folder, device).simulated(seed)


def _train_adapter(
    experiment: Experiment, folder: Path, device: torch.device, deadline: float, adapter: tuple[Masks, int]
) -> None:
    Learning(experiment, folder, device).run(*adapter, deadline)


def summary(frozen: Score, scores: Mapping[Masks, Sequence[Score]]) -> Iterator[Row]:
    """Rows of the means, spreads and what is asked for."""
    for part in ("seen", "holes"):
        base = getattr(frozen, part)
        yield Row(f"{part}, frozen base", f"{base:.2f} dB")
        for masks in MASKS:
            values = [getattr(score, part) for score in scores[masks]]
            gains = _mean_and_spread([value - base for value in values])
            yield Row(f"{part}, {masks}", f"{_mean_and_spread(values)} dB", f"{gains} over the frozen base")
    seen = [score.seen - frozen.seen for score in scores["simulated"]]
    pairs = zip(scores["simulated"], scores["rectangles"], strict=True)
    holes = [simulated.holes - rectangles.holes for simulated, rectangles in pairs]
    for what, gains, target in (
        ("gain in seen pixels", seen, SEEN_TARGET),
        ("gain in holes over rectangles", holes, HOLE_TARGET),
    ):
        reached = "reached" if statistics.mean(gains) >= target else "not reached"
        yield Row(what, f"{_mean_and_spread(gains)} dB", f"target {target:.0f} dB: {reached}")


def _mask_seed(seed: int, number: int) -> int:
    return 1000 * (seed + 1) + number


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of a sample, where there are several."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} +- {statistics.stdev(values):.2f}"


def _since(started: float) -> str:
    wait_for_gpu()
    return f"{time.monotonic() - started:.0f} s"


def _require_same(experiment: Experiment, path: Path) -> None:
    """Raise RequestError where a folder has another experiment, and note this one where it has none."""
    text = repr(experiment)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise RequestError(
            f"{path.parent} holds an experiment of another size or version: choose another --scratch folder"
        )
    path.write_text(text, encoding="utf-8")


def _identity(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file, completely or not at all."""
    partial_path = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial_path)
    put_in_place(partial_path, path)
