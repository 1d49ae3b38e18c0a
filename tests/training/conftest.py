"""Training needs the extras `train` and `wan`."""

from __future__ import annotations

import pytest
import torch

for package in ("accelerate", "peft", "webdataset", "tensorboard", "diffsynth"):
    pytest.importorskip(package, reason="training needs the extras train and wan")

# Toy networks are too small for several threads: on busy cores these wait for each other longer than they compute.
torch.set_num_threads(1)
