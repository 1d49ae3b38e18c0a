"""How large the experiment of `ex4d bench train --part learning` is: on a processor in minutes, and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ex4d.training.settings import AdapterShape, TrainingSettings

# Of the schedule that base and adapters are trained with, and sampled by.
SHIFT = 3.0


@dataclass(frozen=True)
class Experiment:
    """How large the experiment is.

    Attributes:
        side, frames: of the clips; frames are 4n + 1.
        heads, layers, ffn: of the base, whose width is 128 a head.
        shape: of the adapter.
        clips: that base and adapters are trained on.
        masks: of each clip, for the adapters.
        base_steps, base_batch, base_rate: of the base's training.
        settings: of the adapters' training; a sample is a pack of clips.
        pack: clips of a pack.
        evaluated: clips of other scenes.
    """

    side: int
    frames: int
    heads: int
    layers: int
    ffn: int
    shape: AdapterShape
    clips: int
    masks: int
    base_steps: int
    base_batch: int
    base_rate: float
    settings: TrainingSettings
    pack: int
    evaluated: int


def _settings(steps: int, batch: int, rate: float, precision: Literal["bf16", "float32"]) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        batch=batch,
        learning_rate=rate,
        warmup=min(50, steps),
        shift=SHIFT,
        loss_weight="uniform",
        unprompted=0.0,
        precision=precision,
        checkpointing=False,
        keep_every=200,
    )


# The camera encoder's inner layers have to carry all 32 channels, and the LoRA gets what 2 % leave.
EXPERIMENTS = {
    "tiny": Experiment(
        side=32,
        frames=9,
        heads=1,
        layers=3,
        ffn=384,
        shape=AdapterShape(rank=2, alpha=8.0, hidden=48),
        clips=512,
        masks=2,
        base_steps=500,
        base_batch=8,
        base_rate=3e-3,
        settings=_settings(400, 1, 1e-2, "float32"),
        pack=8,
        evaluated=16,
    ),
    "full": Experiment(
        side=48,
        frames=13,
        heads=3,
        layers=8,
        ffn=1536,
        shape=AdapterShape(rank=3, alpha=12.0, hidden=96),
        clips=2048,
        masks=1,
        base_steps=4000,
        base_batch=32,
        base_rate=1e-3,
        settings=_settings(1200, 2, 5e-3, "bf16"),
        pack=16,
        evaluated=48,
    ),
}
