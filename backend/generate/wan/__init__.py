"""The `wan` engine: Wan2.1-I2V-14B with EX-4D's LoRA and camera encoder, colour and mask to the final video.

In the order of the flow: `published` (which files there are), `files` (where they lie here), `checkpoints` and `lora`
(reading them), `models` (building the four networks), `loaded` (keeping them, by what memory there is), `conditioning`
and `encoders` (a shot to what the transformer takes), `transformer` (a pass, on `products`, `fused`, `attention8`,
`streaming` and `parallel`), `denoising`, `decoding`, and `engine`, which tells the story. Importing this package needs
neither diffsynth nor a GPU; using the engine needs the extra `wan`.
"""

from backend.generate.wan.errors import (
    CheckpointError,
    GenerationError,
    ModelsMissingError,
    PromptError,
    WanUnavailableError,
)

WAN_LICENCE = "Wan2.1 and DiffSynth: Apache-2.0, for any work; EX-4D's weights: see their page"


def wan_licence(device: str) -> str:
    """What results of the engine rest on, where it can run on this device: "" without the weights or the extra."""
    from importlib.util import find_spec

    from backend.generate.wan.files import find_files
    from backend.machine import models_folder

    try:
        find_files(models_folder())
        if device == "cpu":
            from backend.generate.wan.engine import require_small_model

            require_small_model(models_folder())
    except (ModelsMissingError, CheckpointError, WanUnavailableError):
        return ""
    return WAN_LICENCE if find_spec("diffsynth") else ""


__all__ = [
    "WAN_LICENCE",
    "CheckpointError",
    "GenerationError",
    "ModelsMissingError",
    "PromptError",
    "WanUnavailableError",
    "wan_licence",
]
