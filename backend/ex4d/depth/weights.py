"""Published weights from disk into a model: every name and shape must fit, and what does not is said for people."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ex4d.depth.depth_models import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AGAIN = "Download it again."
# What a damaged, incomplete or foreign file has been seen to raise inside `diffusers` and `transformers`.
_WHAT_DAMAGE_RAISES = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_config(path: Path) -> dict[str, Any]:
    """A model's JSON configuration.

    Raises:
        WeightsError: missing, or no JSON object.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}). {_AGAIN}") from error
    except ValueError as error:
        raise WeightsError(f"{path}: is no JSON ({error}). {_AGAIN}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: is no JSON object. {_AGAIN}")
    return config


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors or .pth file, mapped into memory; pickled code is never run.

    Raises:
        WeightsError: missing, incomplete or damaged.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: is missing. Download it.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: incomplete or damaged ({error}). {_AGAIN}") from error
    try:
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path}: incomplete or damaged (no end of a PyTorch file). {_AGAIN}")
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: incomplete or damaged ({_first_line(error)}). {_AGAIN}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{path}: does not hold tensors by name. {_AGAIN}")
    return tensors


def load_strictly(
    build: Callable[[], torch.nn.Module], tensors: Mapping[str, torch.Tensor], source: Path, dtype: torch.dtype
) -> torch.nn.Module:
    """Build a model without memory, and let it take over the tensors, which must fit it name by name.

    Args:
        build: makes the model; called on the meta device, so that no random weights are made first. Buffers that are
            not in its state dict must not depend on the device.
        source: for messages.

    Raises:
        WeightsError: a name or a shape that does not fit, or a configuration that no model can be built from.
    """
    with damage_told(source.parent), torch.device("meta"):
        model = build()
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_layout({name: tuple(value.shape) for name, value in tensors.items()}, expected, source)
    as_wanted = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    model.load_state_dict(as_wanted, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def check_layout(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: Path | str
) -> None:
    """Compares names and shapes.

    Raises:
        WeightsError: with how many differ, and the first of them.
    """
    _refuse(
        source,
        missing=sorted(expected.keys() - found.keys()),
        unknown=sorted(found.keys() - expected.keys()),
        other=[
            f"{name} is {found[name]}, not {shape}"
            for name, shape in sorted(expected.items())
            if name in found and found[name] != shape
        ],
    )


def load_transformers_model(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype, **options: Any):
    """A model of `transformers` from a folder, with every tensor of the file used and none left random.

    Raises:
        WeightsError: missing, incomplete, damaged or of another model.
    """
    with _quiet_transformers(), damage_told(folder):
        model, report = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **options
        )
    other = [str(mismatch[0]) for mismatch in report.get("mismatched_keys", ())]
    _refuse(folder, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), other)
    return model.eval().requires_grad_(False)


@contextmanager
def damage_told(source: Path) -> Iterator[None]:
    """What a library raises within this over a damaged or foreign file becomes a `WeightsError` that names the file."""
    from huggingface_hub import errors
    from safetensors import SafetensorError

    # Of releases that check configurations field by field.
    strict = getattr(errors, "StrictDataclassError", SafetensorError)
    try:
        yield
    except (*_WHAT_DAMAGE_RAISES, SafetensorError, strict) as error:
        raise WeightsError(f"{source}: cannot be loaded ({_first_line(error)}). {_AGAIN}") from error


def _refuse(source: Path | str, missing: list[str], unknown: list[str], other: list[str]) -> None:
    if not (missing or unknown or other):
        return
    told = [
        f"{len(names)} {what} (first {names[0]})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", other))
        if names
    ]
    raise WeightsError(
        f"{source}: these are not the weights of this model, or not all of them: tensors {', '.join(told)}. "
        "Download the published file again, unchanged."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the library's own report and progress bar; ours is an exception."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
