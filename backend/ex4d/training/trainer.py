"""`Trainer`: the loop that trains an adapter, from the state that a run has to its last step.

One sample is one pass, as everywhere in the engine; a step has ``batch`` of them, shared out over the processes. All
that chance decides follows from the seed and the sample's position (`schedule`), so a run that is resumed continues bit
for bit on one device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.training.adapter import TrainedTransformer, whole
from ex4d.training.errors import NotFiniteError
from ex4d.training.ranks import distribute, gradients_exchanged
from ex4d.training.run_folder import RunConfig, RunFolder, TrainingState
from ex4d.training.samples import TrainingSample, stacked
from ex4d.training.schedule import FlowMatching, learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ex4d.generation.wan.conditioning import WindowConditioning
    from ex4d.training.shards import Dataset

# AdamW's values of each parameter.
_OPTIMIZER_VALUES = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        step: number of steps that are done with it.
        loss: mean over the batch, weighted as `FlowMatching.loss`.
        gradient_norm: before it was clipped.
        learning_rate: that it was made with.
        seconds: that it took.
        by_noise: mean unweighted error of this process's samples by the quarter of the noise's share: 0 to 3.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float
    by_noise: Mapping[int, float]


# Called after every step, on every process; what it raises ends the run.
OnStep = Callable[[StepResult], None]


def attention_on(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The context that attention runs in, forwards and backwards: the backward pass computes blocks again."""
    return fastest_attention() if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def training_precision(device: torch.device, precision: str) -> Iterator[None]:
    """The context that the transformer is trained and sampled in: that of inference."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"), attention_on(device):
        yield


@contextlib.contextmanager
def same_bits(chosen: bool) -> Iterator[None]:
    """Add in the same order at every run: GPUs' gradients of attention otherwise differ from run to run."""
    switches: Any = torch.utils.deterministic  # not a plain module, which types do not know
    before, filled = torch.are_deterministic_algorithms_enabled(), switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(chosen, warn_only=True)
    switches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        switches.fill_uninitialized_memory = filled


class Trainer:
    """A run in one process.

    Attributes:
        model: as accelerate distributes it.
        adapter: its trained parameters.
        step: steps that are done.
    """

    def __init__(
        self,
        model: TrainedTransformer,
        dataset: Dataset,
        config: RunConfig,
        folder: RunFolder,
        accelerator: Accelerator,
        on_step: OnStep | None = None,
    ):
        """Continue the run in a folder, or begin it.

        Args:
            model: with the adapter's first values; those of the run's last state replace them.
            on_step: called after each step.

        Raises:
            RequestError: the batch cannot be shared out evenly over the processes.
            CheckpointError: the run's last state is damaged, or of another adapter.
        """
        self.settings, self.dataset, self.folder = config.settings, dataset, folder
        self._accelerator, self._on_step = accelerator, on_step
        self._passes = self.settings.batch_of(accelerator.num_processes)
        self._flow = FlowMatching(self.settings)
        self.adapter = model.adapter
        state = folder.read_state()
        self.step = 0 if state is None else state.step
        if state is not None:
            self.adapter.load(state.adapter, folder.state_folder(state.step))
        self.model = distribute(model, accelerator, shard=self.settings.shard)
        trained = list(self.adapter.parameters().values())
        optimizer = torch.optim.AdamW(trained, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay)
        self._optimizer: Any = accelerator.prepare(optimizer)
        if state is not None:
            self._load_optimizer(state.optimizer)
        self._stepping = False

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._accelerator.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self._accelerator.is_main_process

    def run(self, until: int | None = None) -> None:
        """Train to the last step, or to an earlier one; the state after it is kept.

        Raises:
            NotFiniteError: the loss or its gradient became NaN or infinite; the state before that step is kept.
            ShardError: names a shard that cannot be read.
            TrainingError: the disk is full.
        """
        last = self.settings.steps if until is None else min(until, self.settings.steps)
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        first = self.step * self.settings.batch
        stream = self.dataset.stream(self.settings.seed, first + rank, step=ranks)
        try:
            while self.step < last:
                with same_bits(self.settings.deterministic):
                    result = self._run_step(stream)
                if self.step % self.settings.keep_every == 0 or self.step == last:
                    self.keep_state()
                if self._on_step is not None:
                    self._on_step(result)
        except (KeyboardInterrupt, SystemExit):
            # Others would have to take part in collecting the state.
            if ranks == 1 and not self._stepping:
                self.keep_state()
            raise

    def _run_step(self, stream: Iterator[TrainingSample]) -> StepResult:
        started = time.monotonic()
        rate = learning_rate(self.settings, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        total, keys, by_noise = torch.zeros((), device=self.device), [], {}
        for number in range(self._passes):
            sample = next(stream)
            keys.append(sample.key)
            position = self.step * self.settings.batch + number * ranks + rank
            last = number + 1 == self._passes
            with gradients_exchanged(self.model, self._accelerator, last):
                loss, quarter, error = self._loss(sample, position)
                with attention_on(self.device):
                    self._accelerator.backward(loss / self._passes)
            total += loss.detach() / self._passes
            by_noise.setdefault(quarter, []).append(error)
        mean = float(cast(torch.Tensor, self._accelerator.reduce(total, "mean")))
        self._require_finite(mean, "loss", keys)
        parameters = list(self.adapter.parameters().values())
        norm = whole(cast(torch.Tensor, self._accelerator.clip_grad_norm_(parameters, self.settings.clip_norm))).item()
        self._require_finite(norm, "gradient's norm", keys)
        self._stepping = True
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self._stepping = False
        errors = {quarter: float(torch.stack(values).mean()) for quarter, values in sorted(by_noise.items())}
        return StepResult(self.step, mean, norm, rate, time.monotonic() - started, errors)

    def _loss(self, sample: TrainingSample, position: int) -> tuple[torch.Tensor, int, torch.Tensor]:
        """The weighted loss of a sample, the quarter of its noise's share, and the unweighted error."""
        target, conditioning = conditioned(sample, self.device)
        draw = self._flow.draw(target.shape, position)
        if not draw.prompted:
            conditioning = replace(conditioning, prompt_embeds=torch.zeros_like(conditioning.prompt_embeds))
        with training_precision(self.device, self.settings.precision):
            velocity = self.model(self._flow.noisy(target, draw), draw.timestep.to(self.device), conditioning)
        loss = self._flow.loss(velocity, target, draw)
        return loss, min(3, int(4 * draw.sigma)), loss.detach() / max(draw.weight, 1e-6)

    def _require_finite(self, value: float, what: str, keys: list[str]) -> None:
        """Keep the state before this step and stop, where a value of it is not finite."""
        if value - value == 0:
            return
        self._optimizer.zero_grad()
        self.keep_state()
        raise NotFiniteError(
            f"the {what} became {value} in step {self.step + 1} (samples {', '.join(keys[:4])}); nothing of that step "
            f"is kept, and the run's state is that of step {self.step}. Check these samples, or export the state with "
            "ex4d train export and start another run --from it with a lower --learning-rate"
        )

    def keep_state(self) -> None:
        """Write the run's state; every process must call this."""
        adapter = self.adapter.tensors()
        optimizer = {
            f"{name}.{value}": whole(self._optimizer.state[parameter][value])
            for name, parameter in self.adapter.parameters().items()
            for value in _OPTIMIZER_VALUES
            if parameter in self._optimizer.state
        }
        if self.is_first:
            self.folder.keep_state(TrainingState(self.step, adapter, optimizer), self.settings.keep_states)
        self._accelerator.wait_for_everyone()

    def _load_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.adapter.parameters().items():
            if f"{name}.step" in tensors:
                values = {value: tensors[f"{name}.{value}"] for value in _OPTIMIZER_VALUES}
                moments = {value: _placed_like(values[value], parameter) for value in _OPTIMIZER_VALUES[:2]}
                self._optimizer.state[parameter] = {**moments, "step": values["step"].clone()}


def _placed_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor where a parameter is: on its device, and sharded as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device, copy=True)


def conditioned(sample: TrainingSample, device: torch.device) -> tuple[torch.Tensor, WindowConditioning]:
    """Target latents (1, 16, F, h, w) float32 of a sample, and its conditioning, on a device."""
    target, conditioning = stacked([sample])
    floats = {
        name: value.to(device, torch.float32)
        for name, value in vars(conditioning).items()
        if isinstance(value, torch.Tensor)
    }
    return target.to(device, torch.float32), replace(conditioning, **floats)
