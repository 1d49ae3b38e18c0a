"""One training session from a command: starts or resumes a run, trains to its end, and logs on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.training.base_model import base_identity, find_base, open_for_training
from ex4d.training.logs import TrainingLog
from ex4d.training.ranks import accelerator_of, as_first_decides, failing_together
from ex4d.training.run_folder import RunConfig, RunFolder, file_sha256
from ex4d.training.sampling import Decode, VaeDecode, sample_latents, side_by_side
from ex4d.training.settings import AdapterShape, CardName, TrainingSettings
from ex4d.training.shards import Dataset
from ex4d.training.trainer import StepResult, Trainer
from ex4d.weights.catalogue import part
from ex4d.weights.places import find_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ex4d.progress import Progress
    from ex4d.weights.checkpoints import OnTensor


def configure(
    settings: TrainingSettings,
    shape: AdapterShape,
    dataset: Dataset,
    base: Sequence[Path],
    start: Path | None = None,
    card: CardName = "80GB",
) -> RunConfig:
    """The configuration of a run on files that are here.

    Args:
        settings: without a choice, memory is used as the card asks for.
        start: a published or exported adapter to continue from; None to begin at zero.
    """
    continued = ("", "") if start is None else (str(start), file_sha256(start))
    place, samples = dataset.location, dataset.manifest.identity
    place = place if "://" in place else str(Path(place).absolute())
    return RunConfig(settings.for_card(card), shape, place, samples, base_identity(base), *continued)


class Session:
    """A run on this machine's weights.

    Attributes:
        run: its folder.
        config: of the run.
    """

    def __init__(self, run: RunFolder, config: RunConfig, models: Path, further: Sequence[Path] = ()):
        """Prepare a session; ``models`` and ``further`` are where weights are found."""
        self.run, self.config, self._models, self._further = run, config, models, further

    @staticmethod
    def resume(folder: Path, models: Path, further: Sequence[Path] = (), dataset: str = "") -> Session:
        """A session that continues a run.

        Args:
            folder: of the run.
            dataset: where the data set is now; "" where it was.

        Raises:
            RunDiffersError: the data set or the base model are not those that the run was started with.
        """
        run = RunFolder(folder)
        config = run.config()
        opened = Dataset.open(dataset or config.dataset)
        base = base_identity(find_base(models, further))
        found = replace(config, dataset=opened.location, samples=opened.manifest.identity, base=base)
        run.require_same(found)
        return Session(run, found, models, further)

    def train(
        self,
        device: str,
        until: int | None = None,
        progress: Progress | None = None,
        on_tensor: OnTensor | None = None,
        say: Callable[[str], None] = print,
    ) -> int:
        """Train to the last step, or to an earlier one; returns the step that the run is at.

        Raises:
            TrainingError, NotFiniteError, ShardError: see `Trainer.run`.
            RequestError: the batch cannot be shared out evenly over the processes.
            RankLostError: another process of the run ended.
        """
        settings = self.config.settings
        accelerator = accelerator_of(device)
        first = accelerator.is_main_process
        settings.batch_of(accelerator.num_processes)
        with failing_together(), self.run.locked() if first else nullcontext():
            if first and not self.run.exists:
                self.run.start(self.config)
            accelerator.wait_for_everyone()
            dataset = Dataset.open(self.config.dataset)
            where = accelerator.device
            base = find_base(self._models, self._further)
            model = open_for_training(base, self.config, where, on_tensor, begins=not self.run.steps())
            log: TrainingLog | None = None
            decode = self._decode(where) if first and settings.sample_every else None
            shown = None
            # All processes take part in a sample, also where only the first one has the decoder's weights.
            if as_first_decides(decode is not None):
                shown = next(dataset.samples(next(shard for shard in dataset.manifest.shards if shard.keys)))

            def on_step(result: StepResult) -> None:
                if log is not None:
                    log.step(result)
                if first and progress is not None:
                    progress("train", result.step, settings.steps)
                if shown is not None and result.step % settings.sample_every == 0:
                    latents = sample_latents(trainer.model, shown, settings, where)
                    if log is not None and decode is not None:
                        log.video(side_by_side(shown, latents, decode), result.step, self.run.samples)

            trainer = Trainer(model, dataset, self.config, self.run, accelerator, on_step)
            if first:
                log = TrainingLog(self.run.logs, trainer.step)
                if trainer.step:
                    say(f"continues after step {trainer.step} of {settings.steps}")
            try:
                trainer.run(until)
            finally:
                if log is not None:
                    log.close()
        return trainer.step

    def _decode(self, device: object) -> Decode | None:
        """Wan's decoder; None without its weights, so that there are no sample videos."""
        import torch

        found = find_part(self._models, part("vae"), self._further)
        return VaeDecode(found[0], torch.device(str(device))) if found else None
