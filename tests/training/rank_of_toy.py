"""One of several processes that train the toy together: with samples, a copy in each, sharded, and until one fails."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch

from ex4d.training.errors import TrainingError
from ex4d.training.ranks import accelerator_of, failing_together
from ex4d.training.run_folder import RunFolder
from ex4d.training.session import Session
from ex4d.training.shards import Dataset

ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> None:
    """Train in a folder that has a data set."""
    sys.path.append(str(ROOT / "scripts"))
    # `tests` is a folder without an __init__.py, which an installed package of that name would hide.
    sys.modules["tests"] = tests = types.ModuleType("tests")
    tests.__path__ = [str(ROOT / "tests")]
    from tests.training.toy_runs import toy_config, toy_trainer

    torch.set_num_threads(1)
    accelerator, dataset = accelerator_of("cpu"), Dataset.open(folder / "data")

    def fail(result):
        if result.step == 2 and accelerator.process_index == 1:
            raise TrainingError("its GPU fell off the bus")

    # Sharded, all have to make the passes of a sample; the first one alone has the decoder's weights.
    files = folder / f"models-{accelerator.process_index}"
    config = toy_config(dataset, steps=1, warmup=0, sample_every=1, shard=True)
    Session(RunFolder(folder / "sampled"), config, files).train("cpu")
    with failing_together():
        for name, on_step in (("copies", None), ("sharded", None), ("failing", fail)):
            config = toy_config(dataset, batch=4, steps=4, shard=name == "sharded")
            toy_trainer(folder / name, dataset, config, on_step).run()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except TrainingError as error:
        sys.exit(str(error))
