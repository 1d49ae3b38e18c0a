"""Measures training at full size with random weights: trained parameters, seconds a sample, memory, and several GPUs.

Each case runs in processes of its own (`python -m bench.training_steps CASE`), as accelerate's launcher starts them, so
that every one begins with an empty GPU. Without a GPU, cases are of a toy's size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.measuring import Row
from bench.random_weights import random_weights, small_dit_sizes
from ex4d.generation.wan.layouts import full_size_sizes
from ex4d.generation.wan.networks import with_exact_norms
from ex4d.generation.wan.transformer import Recomputation
from ex4d.subprocesses import module_command, module_environment
from ex4d.training.adapter import Building, build_trained, count_parameters
from ex4d.training.manifest import FORMAT, DatasetManifest
from ex4d.training.ranks import accelerator_of, failing_together
from ex4d.training.run_folder import RunConfig, RunFolder
from ex4d.training.samples import SampleOrigin, TrainingSample
from ex4d.training.settings import CARD_SAMPLES, CARDS, AdapterShape, CardName, TrainingSettings
from ex4d.training.shards import Dataset, shard_name, write_shard
from ex4d.training.trainer import Trainer
from ex4d_core.final_estimates import pass_operations

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

# The first is a warm-up; its launch tunes and allocates.
_STEPS = 4
# Of which the costs of a run are told: how many samples the paper's run had is not published.
_SAMPLES = 100_000
_TOY_SHAPE = AdapterShape(4, 4.0, 8)
_RESULT = "result: "
# Seconds that a case may take.
_LIMIT = 300


@dataclass(frozen=True)
class StepCase:
    """One measurement.

    Attributes:
        card: whose preset is used.
        frames, width, height: of a sample.
        gpus: how many train.
        shard: whether they split the weights.
        deterministic: whether sums are the same at every run.
    """

    card: CardName
    frames: int
    width: int
    height: int
    gpus: int = 1
    shard: bool = False
    deterministic: bool = True

    @property
    def grid(self) -> tuple[int, int, int]:
        """(F, h, w) of the latents."""
        return (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8


@dataclass(frozen=True)
class Measured:
    """What the first process of a case found.

    Attributes:
        seconds: a step of one sample on each GPU.
        gigabytes: peak of GPU memory, of 10**9 bytes; 0 without a GPU.
        state_seconds: to write the last state.
    """

    seconds: float
    gigabytes: float
    state_seconds: float


def measure_steps() -> Iterator[Row]:
    """Yield the rows of `ex4d bench train --part steps`; on an H200 about six minutes, with a second GPU nine."""
    yield _parameters()
    alone: float | None = None
    for case in _cases():
        try:
            measured = _run(case)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr or ""
            yield Row(_name(case), "failed", said.strip().splitlines()[-1] if said.strip() else str(error))
            continue
        yield Row(_name(case), f"{measured.seconds:.2f} s", _remark(case, measured))
        if case == _cases()[0]:
            alone = measured.seconds
            hours = _SAMPLES * measured.seconds / 3600
            yield Row(f"a run of {_SAMPLES:,} samples", f"{hours:.0f} h", "of one GPU of this kind, without sampling")
            yield Row("writing a state", f"{measured.state_seconds:.1f} s", "adapter and AdamW's moments, float32")
        elif case.gpus > 1 and alone is not None:
            efficiency = alone / measured.seconds
            how = "weights split (FSDP)" if case.shard else "a copy each (DDP)"
            yield Row(f"{case.gpus} GPUs, {how}", f"{case.gpus * efficiency:.2f} x", "samples a second, of one GPU's")


def _cases() -> list[StepCase]:
    if not torch.cuda.is_available():
        return [StepCase("80GB", 5, 48, 32), StepCase("80GB", 5, 48, 32, 2), StepCase("80GB", 5, 48, 32, 2, True)]
    cases = [StepCase(card, *CARD_SAMPLES[card]) for card in reversed(CARDS)]
    cases.insert(1, replace(cases[0], deterministic=False))
    if torch.cuda.device_count() > 1:
        cases += [replace(cases[0], gpus=2), replace(cases[0], gpus=2, shard=True)]
    return cases


def _parameters() -> Row:
    counted = count_parameters(AdapterShape(), width=5120, ffn=13824, blocks=40)
    parts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in counted.items())
    remark = f"{parts}: all that the published file holds; the paper's 140 M is 1 % of 14 B"
    return Row("trained parameters", f"{sum(counted.values()) / 1e6:.1f} M", remark)


def _name(case: StepCase) -> str:
    gpus = "" if case.gpus == 1 else f", {case.gpus} GPUs{', split' if case.shard else ''}"
    return f"step, --card {case.card}{'' if case.deterministic else ', --any-order'}{gpus}"


def _remark(case: StepCase, measured: Measured) -> str:
    size = f"{case.frames} frames of {case.width}x{case.height}, one sample a GPU"
    if not measured.gigabytes:
        return f"{size}, a toy"
    frames, height, width = case.grid
    matmul, attention = pass_operations(frames * height * width // 4)
    # Forwards, forwards again, and backwards: frozen weights get no gradients, but both operands of attention do.
    rate = (3 * matmul + 4 * attention) / measured.seconds
    return f"{size}; peak {measured.gigabytes:.1f} GB; {rate / 1e12:.0f} TFLOP/s"


def _run(case: StepCase) -> Measured:
    """Run a case in its own processes."""
    words = ["bench.training_steps", json.dumps(asdict(case))]
    if case.gpus > 1:
        words = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(case.gpus), "-m", *words]
    environment = {**module_environment(), "OMP_NUM_THREADS": "1"}
    scripts = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = f"{scripts}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        module_command(words[0], *words[1:]),
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(_RESULT))
    return Measured(**json.loads(line.removeprefix(_RESULT)))


def measure_case(case: StepCase) -> Measured | None:
    """Train for a few steps in this process; None in all but the first of several."""
    on_gpu = torch.cuda.is_available()
    accelerator = accelerator_of("cuda" if on_gpu else "cpu")
    device = accelerator.device
    sizes = full_size_sizes() if on_gpu else small_dit_sizes()
    shape = AdapterShape() if on_gpu else _TOY_SHAPE
    settings = TrainingSettings(
        steps=_STEPS,
        batch=case.gpus,
        warmup=0,
        shard=case.shard,
        deterministic=case.deterministic,
        precision="bf16" if on_gpu else "float32",
        keep_every=_STEPS + 1,
        sample_every=0,
    ).for_card(case.card)
    seconds = []
    with failing_together(), tempfile.TemporaryDirectory(prefix="ex4d-bench-") as scratch:
        dataset = _random_dataset(Path(scratch) / "data", case, sizes["text_dim"])
        config = RunConfig(settings, shape, dataset.location, dataset.manifest.identity, "random")
        folder = RunFolder(Path(scratch) / "run")
        folder.start(config)
        building = Building(
            shape,
            0,
            bool(settings.frozen_in_8_bits),
            Recomputation(settings.checkpointing, bool(settings.offload)),
        )
        dtype = torch.bfloat16 if on_gpu else torch.float32
        model = build_trained(*_random_transformer(sizes, device, dtype), building, device=device)
        trainer = Trainer(model, dataset, config, folder, accelerator, lambda result: seconds.append(result.seconds))
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.run()
        state_seconds = _seconds_to_write(trainer)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0
    measured = Measured(statistics.median(seconds[1:]), peak, state_seconds)
    return measured if accelerator.is_main_process else None


def _seconds_to_write(trainer: Trainer) -> float:
    import time

    trainer.step += 1
    started = time.monotonic()
    trainer.keep_state()
    return time.monotonic() - started


def _random_transformer(
    sizes: dict[str, Any], device: torch.device, dtype: torch.dtype
) -> tuple[WanModel, Iterator[nn.Module]]:
    """DiffSynth's transformer without blocks, and these, drawn on the device one at a time."""
    from diffsynth.core.vram.initialization import skip_model_initialization
    from diffsynth.models.wan_video_dit import WanModel

    with skip_model_initialization():
        dit = WanModel(**sizes)
    blocks, dit.blocks = list(dit.blocks), nn.ModuleList()

    def drawn(module: nn.Module, seed: int) -> Any:
        state = {}
        for place, (name, value) in enumerate(module.state_dict().items()):
            state[name] = random_weights({name: value}, 1000 * seed + place, device)[name].to(dtype)
        module.load_state_dict(state, assign=True)
        return with_exact_norms(module).eval().requires_grad_(False)

    return drawn(dit, 0), (drawn(blocks.pop(0), number) for number in range(1, len(blocks) + 1))


def _random_dataset(folder: Path, case: StepCase, text_dim: int) -> Dataset:
    """Two samples of random numbers."""
    folder.mkdir(parents=True)
    samples = []
    for number in range(2):
        generator = torch.Generator().manual_seed(number)

        def noise(*shape: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator).bfloat16()

        prompt = noise(512, text_dim)
        prompt[100:] = 0
        samples.append(
            TrainingSample(
                SampleOrigin(f"{number:08d}", case.frames, case.width, case.height),
                target_latents=noise(16, *case.grid),
                control_latents=noise(32, *case.grid),
                image_latents=noise(20, *case.grid),
                prompt_embeds=prompt,
                image_embeds=noise(257, 1280),
            )
        )
    record = write_shard(folder / shard_name(0), samples)
    DatasetManifest(FORMAT, (record,), samples[0].shapes, "bfloat16", {}, {}, {}, {}).save(folder)
    return Dataset.open(folder)


def main() -> None:
    """Measure the case that the command line has, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=json.loads)
    measured = measure_case(StepCase(**parser.parse_args().case))
    if measured is not None:
        print(_RESULT + json.dumps(asdict(measured)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
