"""Enlarges generated frames to the take's size: by interpolation, or by an upscaler that spandrel can load.

Upscalers such as Real-ESRGAN are the owner's files in MODELS/upscalers, each of which says of itself what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from ex4d.generation.wan.errors import GenerationError, WanUnavailableError
from ex4d.installation import install_command
from ex4d.weights.errors import CheckpointError
from ex4d.weights.notes import note_once
from ex4d.weights.places import find_upscaler, list_upscalers
from ex4d_core.wan_settings import ANY_UPSCALER, BICUBIC

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor  # pyright: ignore[reportMissingImports] (the extra upscale)

# Side of the tiles that an upscaler is given, which bounds its memory (1 GB at four times the size), and how far the
# surroundings of a tile reach, without which tiles would differ at their borders. Input pixels.
_TILE, _AROUND = 256, 24


class Enlarger(Protocol):
    """Enlarges frames.

    Attributes:
        name: how, for people.
    """

    name: str

    def __call__(self, frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Scale frames (T, 3, h, w) in [-1, 1] to (T, 3, height, width)."""
        ...


class Interpolation:
    """The `Enlarger` that everybody has."""

    name = "bicubic interpolation"

    def __call__(self, frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """See `Enlarger`."""
        return functional.interpolate(frames, (height, width), mode="bicubic").clamp(-1, 1)


class Upscaler:
    """The `Enlarger` of a network; what it makes is scaled to the size that is wanted."""

    def __init__(self, path: Path, device: torch.device | str):
        """Load the network of a file.

        Raises:
            CheckpointError: it is no upscaler for colour images.
        """
        self._network = _load(path, path.stat().st_mtime_ns, str(device))
        self.name = f"{path.stem} ({self._network.architecture.name}, {self._network.scale}x)"

    def __call__(self, frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """See `Enlarger`.

        Raises:
            GenerationError: the network produced NaN or infinity.
        """
        if width * height <= frames.shape[-1] * frames.shape[-2]:  # a change of aspect alone
            return INTERPOLATION(frames, width, height)
        enlarged = torch.cat([self._in_tiles(frame) for frame in (frames.float() + 1).div(2).clamp(0, 1).split(1)])
        if not torch.isfinite(enlarged).all():
            raise GenerationError(
                f"the upscaler {self.name} produced NaN or infinity: use another, or --upscaler {BICUBIC}"
            )
        if enlarged.shape[-2:] != (height, width):
            enlarged = functional.interpolate(enlarged, (height, width), mode="bicubic", antialias=True)
        return (enlarged.clamp(0, 1) * 2 - 1).to(frames.dtype)

    def _in_tiles(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, h, w) in [0, 1] enlarged by the network, tile by tile."""
        network, (height, width) = self._network, image.shape[-2:]
        if network.tiling.name != "SUPPORTED":
            return network(image.to(network.dtype)).float()
        scale = network.scale
        whole = image.new_empty(1, 3, height * scale, width * scale)
        for top, down in _tiles(height):
            for left, across in _tiles(width):
                above, before = min(top, _AROUND), min(left, _AROUND)
                tile = image[..., top - above : down + _AROUND, left - before : across + _AROUND]
                made = network(tile.to(network.dtype)).float()
                made = made[..., above * scale :, before * scale :]
                rows, columns = slice(top * scale, down * scale), slice(left * scale, across * scale)
                whole[..., rows, columns] = made[..., : (down - top) * scale, : (across - left) * scale]
        return whole


INTERPOLATION = Interpolation()


def create_enlarger(name: str, models: Path, device: torch.device | str) -> Enlarger:
    """Create the enlarger that a setting names, with its network loaded, so that a bad file fails before any work.

    Args:
        name: as `WanSettings.upscaler`.
        models: folder of weights.
        device: that it works on.

    Raises:
        WeightsMissingError: there is no upscaler of that name.
        WanUnavailableError: spandrel is not installed.
        CheckpointError: the file is no upscaler.
    """
    if name == BICUBIC:
        return INTERPOLATION
    if name == ANY_UPSCALER:
        if reason := why_no_upscaler(models):
            if list_upscalers(models):
                note_once(reason)
            return INTERPOLATION
        return Upscaler(list_upscalers(models)[0], device)
    path = find_upscaler(models, name)
    if reason := _why_no_spandrel():
        raise WanUnavailableError(reason)
    return Upscaler(path, device)


def why_no_upscaler(models: Path) -> str:
    """Why takes are enlarged by interpolation with the setting "auto", and what to do; "" where an upscaler does it."""
    if not list_upscalers(models):
        return (
            f"there is no upscaler in {models / 'upscalers'}: put a file such as RealESRGAN_x2plus.pth there; takes "
            f"are enlarged by {INTERPOLATION.name}"
        )
    return _why_no_spandrel()


def _why_no_spandrel() -> str:
    if find_spec("spandrel") is not None:
        return ""
    return f"upscalers need a package that is not installed; install it with: {install_command('upscale')}"


def _tiles(length: int) -> Iterator[tuple[int, int]]:
    """Start and end of tiles of about the same length."""
    count = -(-length // _TILE)
    for number in range(count):
        yield number * length // count, (number + 1) * length // count


@lru_cache(1)
def _load(path: Path, changed: int, device: str) -> ImageModelDescriptor:
    """Load a file, again if it was ``changed`` (ns); the last one stays loaded for the next job."""
    import spandrel  # pyright: ignore[reportMissingImports] (the extra upscale)

    problem = ""
    try:
        network = spandrel.ModelLoader().load_from_file(path)
    except Exception as error:  # each architecture has its own
        raise CheckpointError(f"{path} is no upscaler that spandrel knows: {error}") from error
    if not isinstance(network, spandrel.ImageModelDescriptor) or network.purpose != "SR":
        problem = f"it is of the kind {network.purpose}"
    elif (network.input_channels, network.output_channels) != (3, 3):
        problem = f"it takes {network.input_channels} and makes {network.output_channels} channels"
    elif network.scale < 2:
        problem = f"its scale is {network.scale}"
    if problem or not isinstance(network, spandrel.ImageModelDescriptor):
        raise CheckpointError(f"{path} is no upscaler for colour images: {problem}")
    half = network.supports_half and torch.device(device).type == "cuda"
    return network.eval().to(torch.device(device), torch.float16 if half else torch.float32)
