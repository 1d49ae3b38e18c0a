"""Settings of a training run, with what is known of the paper's beside them, and presets for cards of three sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from ex4d_core.errors import RequestError
from ex4d_core.schema import Option, Range, Settings

LossWeight = Literal["bell", "uniform"]
Decay = Literal["constant", "cosine"]
CardName = Literal["24GB", "48GB", "80GB"]

# Changing these on resume changes no step that a run takes: everything else has to stay.
FREE_ON_RESUME = ("keep_every", "keep_states", "sample_every", "checkpointing", "offload", "shard")


@dataclass(frozen=True)
class AdapterShape(Settings):
    """The size of an adapter; the defaults are the published file's.

    Attributes:
        rank: of the LoRA.
        alpha: the LoRA's results count alpha / rank times.
        hidden: channels of the camera encoder's inner layers.
    """

    rank: Annotated[int, Range(1, 1024), Option("rank of the LoRA", metavar="N")] = 16
    alpha: Annotated[float, Range(above=0), Option("the LoRA's results count alpha / rank times", metavar="A")] = 16.0
    hidden: Annotated[int, Range(1, 8192), Option("channels of the camera encoder's inner layers", metavar="N")] = 1024

    @property
    def scale(self) -> float:
        """What the LoRA's results are multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """How an adapter is trained.

    Known of EX-4D's own training are the adapter (rank, layers) and that it runs on Wan2.1-I2V-14B-480P with 49 frames
    of 512x512; its code, with timesteps and weights of the loss, was not published: the values here are ours.

    Attributes:
        steps: of the optimiser.
        batch: samples of one step, over all GPUs and passes.
        learning_rate: of AdamW, after the warm-up.
        warmup: steps in which it rises from zero.
        decay: whether it then stays, or falls to zero at the last step along a cosine.
        weight_decay, clip_norm: of AdamW, and the largest norm of a step's gradient.
        shift: of Wan's schedule; 5 is what the sampler uses.
        loss_weight: of a timestep: "bell" is DiffSynth's, highest in the middle; "uniform" is 1.
        unprompted: share of samples whose prompt is left out: zeros, as after a text's end.
        precision: of the frozen weights' matmuls; what is trained, and its gradients, are float32.
        frozen_in_8_bits: store the frozen weights in fp8.
        checkpointing, offload: see `Recomputation`.
        shard: split the frozen weights over all GPUs (FSDP) instead of a copy on each (DDP).
        deterministic: add in the same order at every run, which on GPUs takes a slower attention.
        seed: of the adapter's first values, the order of the data, and all noise.
        keep_every, keep_states: a state is kept every so many steps, and so many of them.
        sample_every: a sample video is made every so many steps; 0 for none.
    """

    steps: Annotated[int, Range(1, 10_000_000), Option("steps of the optimiser", metavar="N")] = 2000
    batch: Annotated[int, Range(1, 4096), Option("samples of one step, over all GPUs", metavar="N")] = 4
    learning_rate: Annotated[float, Range(above=0, maximum=1), Option("after the warm-up", metavar="X")] = 1e-4
    warmup: Annotated[int, Range(0), Option("steps in which the learning rate rises from zero", metavar="N")] = 100
    decay: Annotated[Decay, Option("whether the learning rate then stays, or falls to zero along a cosine")] = "cosine"
    weight_decay: Annotated[float, Range(0, 1), Option("of AdamW", metavar="X")] = 0.01
    clip_norm: Annotated[float, Range(above=0), Option("largest norm of a step's gradient", metavar="X")] = 1.0
    shift: Annotated[float, Range(above=0), Option("of Wan's schedule", metavar="X")] = 5.0
    loss_weight: Annotated[LossWeight, Option("weight of a timestep in the loss")] = "bell"
    unprompted: Annotated[float, Range(0, 1), Option("share of samples without their prompt", metavar="X")] = 0.0
    precision: Annotated[Literal["bf16", "float32"], Option("of the frozen weights' matmuls")] = "bf16"
    frozen_in_8_bits: Annotated[bool | None, Option("store the frozen weights in fp8; default: as --card has it")] = (
        None
    )
    checkpointing: Annotated[
        bool, Option("keep all activations instead of computing them twice", flag="--keep-all")
    ] = True
    offload: Annotated[
        bool | None, Option("keep the blocks' inputs in the host's memory; default: as --card has it")
    ] = None
    shard: Annotated[bool, Option("split the frozen weights over all GPUs (FSDP)")] = False
    deterministic: Annotated[
        bool, Option("let a GPU add in any order: faster, but not the same bits again", flag="--any-order")
    ] = True
    seed: Annotated[int, Range(0, 2**31 - 1), Option("of everything that chance decides", metavar="N")] = 0
    keep_every: Annotated[int, Range(1), Option("keep a state every N steps", metavar="N")] = 250
    keep_states: Annotated[int, Range(1, 1000), Option("how many states are kept", metavar="N")] = 2
    sample_every: Annotated[int, Range(0), Option("make a sample video every N steps; 0: none", metavar="N")] = 250

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup > self.steps:
            raise RequestError(f"warmup must be at most the {self.steps} steps, not {self.warmup}")
        if self.frozen_in_8_bits and self.shard:
            raise RequestError("weights in 8 bits cannot be split over GPUs: leave out --frozen-in-8-bits or --shard")
        if self.frozen_in_8_bits and self.precision == "float32":
            raise RequestError("with --precision float32 the frozen weights cannot be stored in 8 bits")

    def batch_of(self, processes: int) -> int:
        """Samples of a step that each process of a run has.

        Raises:
            RequestError: they cannot be shared out evenly.
        """
        if self.batch % processes:
            raise RequestError(
                f"a batch of {self.batch} cannot be shared out evenly over {processes} processes: choose --batch "
                f"{-(-self.batch // processes) * processes}"
            )
        return self.batch // processes

    def for_card(self, card: CardName) -> TrainingSettings:
        """The same, with what a card's memory asks for where nobody has chosen it."""
        of_card = dict(CARDS[card])
        if self.shard or self.precision == "float32":  # neither goes with weights in 8 bits
            of_card["frozen_in_8_bits"] = False
        chosen = {name: value for name, value in of_card.items() if getattr(self, name) is None}
        return replace(self, **chosen)


# What each card's memory asks for at 49 frames of 512x512 (24GB: 25 frames of 384x384); docs/how-to/train.md counts it.
# The weights take 33 GB in bf16 and 17 GB in 8 bits, the adapter with AdamW's state 1.6 GB, 40 blocks' inputs 11 GB.
CARDS: dict[CardName, dict[str, Any]] = {
    "24GB": {"frozen_in_8_bits": True, "offload": True},
    "48GB": {"frozen_in_8_bits": False, "offload": True},
    "80GB": {"frozen_in_8_bits": False, "offload": False},
}
# The largest samples (frames, width, height) that fit each card.
CARD_SAMPLES: dict[CardName, tuple[int, int, int]] = {
    "24GB": (25, 384, 384),
    "48GB": (49, 512, 512),
    "80GB": (49, 512, 512),
}
