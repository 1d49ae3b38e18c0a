"""`NetworkChoice`: the weights that the networks are loaded from, and how; shared by all processes of a shot.

`NetworkKeys` says which networks two choices have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ex4d.generation.wan.encoders import files_identity
from ex4d.weights.converted import ConvertedWeights
from ex4d.weights.wan_files import WanFiles
from ex4d_core.wan_settings import Precision


@dataclass(frozen=True)
class NetworkChoice:
    """Which weights are loaded, and how.

    Attributes:
        files: as found on this machine.
        loras: files and weights.
        device: "cpu" or "cuda:N".
        precision: of the transformer.
        fp8_attention: with "fp8", self-attention in fp8 too.
        identity: of the files, so that a replaced one is loaded again.
        further_devices: they share every shot's denoising steps.
        vram_limit_gb: GPU memory (of 2**30 bytes each) to use of each device; None for all that is free.
        converted: where converted weights are kept; None to keep none.
    """

    files: WanFiles
    loras: tuple[tuple[Path, float], ...]
    device: str
    precision: Precision
    fp8_attention: bool = False
    identity: str = ""
    further_devices: tuple[str, ...] = ()
    vram_limit_gb: float | None = None
    converted: ConvertedWeights | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of all weights that are not fp8."""
        return torch.float32 if self.precision == "float32" else torch.bfloat16


@dataclass(frozen=True)
class NetworkKeys:
    """What the networks of a choice are loaded from, and how: networks of equal keys are the same.

    Attributes:
        base: of the transformer's weights as they are stored.
        transformer: with all LoRAs, in its precision.
        vae: in its type.
        encoders: by "text_encoder" and "image_encoder", in their types.
    """

    base: str
    transformer: str
    vae: str
    encoders: dict[str, str]

    @staticmethod
    def of(choice: NetworkChoice) -> NetworkKeys:
        """The keys of a choice's files as they are now; one that is gone is an error when it is read."""
        files, dtype, base = choice.files, choice.dtype, _state(*choice.files.dit)
        merged = _state(files.ex4d, *(path for path, _ in choice.loras))
        encoders = {"text_encoder": files.text_encoder, "image_encoder": (files.image_encoder,)}
        return NetworkKeys(
            base,
            f"{base} {merged} {choice.loras} {choice.precision}",
            f"{_state(files.vae)} {dtype}",
            {name: f"{name} {_state(*paths)} {dtype}" for name, paths in encoders.items()},
        )


def _state(*paths: Path) -> str:
    return str([(str(path), files_identity(path) if path.exists() else "") for path in paths])
