"""Loads models of `transformers` and configurations from folders strictly, with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ex4d.weights.checkpoints import first_line, refuse_differences
from ex4d.weights.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AGAIN = "Delete it, and fetch it again with ex4d models fetch"
# What a damaged, incomplete or foreign file has been seen to raise inside `diffusers` and `transformers`.
_WHAT_DAMAGE_RAISES = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_config(path: Path) -> dict[str, Any]:
    """A model's JSON configuration.

    Raises:
        CheckpointError: missing, or not a JSON object.
    """
    with damage_named(path):
        config = json.loads(path.read_text("utf-8"))
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object. {_AGAIN}")
    return config


def load_pretrained(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """A model of `transformers` from a folder, with every tensor of the file used and none left random.

    Raises:
        CheckpointError: missing, incomplete, damaged or of another model.
    """
    with _quiet_transformers(), damage_named(folder):
        loaded: Any = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **options
        )
    model, report = loaded
    keys = {
        "keys are missing": report["missing_keys"],
        "keys are unexpected": report["unexpected_keys"],
        "tensors have another shape": [str(mismatch[0]) for mismatch in report.get("mismatched_keys", ())],
    }
    refuse_differences(folder, kind.__name__, keys)
    return model.eval().requires_grad_(False)


@contextmanager
def damage_named(source: Path) -> Iterator[None]:
    """Turns what a library raises over a damaged or foreign file into a `CheckpointError` that names the file."""
    from huggingface_hub import errors
    from safetensors import SafetensorError

    # Of releases that check configurations field by field.
    strict = getattr(errors, "StrictDataclassError", SafetensorError)
    try:
        yield
    except (*_WHAT_DAMAGE_RAISES, SafetensorError, strict) as error:
        raise CheckpointError(f"{source} cannot be loaded ({first_line(error)}). {_AGAIN}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the library's own report and progress bar; ours is an exception."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
