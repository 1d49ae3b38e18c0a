"""The `wan` engine: Wan2.1-I2V-14B with EX-4D's LoRA and camera encoder, colour and mask to the final video.

In the order of the flow: `published` (which files there are), `files` (where they lie here), `checkpoints` and `lora`
(reading them), `models` (building the four networks), `loaded` (keeping them, by what memory there is), `conditioning`
and `encoders` (a shot to what the transformer takes), `transformer` (a pass, on `products`, `fused`, `attention8`,
`streaming` and `parallel`), `denoising`, `decoding`, and `engine`, which tells the story. Importing this package needs
neither diffsynth nor a GPU; using the engine needs the extra `wan`.
"""

from ex4d.generate.wan.errors import (
    CheckpointError,
    GenerationError,
    ModelsMissingError,
    PromptError,
    WanUnavailableError,
)

WAN_LICENCE = "Wan2.1 and DiffSynth: Apache-2.0, for any work; EX-4D's weights: see their page"
NO_GPU = "the engine wan needs an NVIDIA GPU that PyTorch can use, and there is none here"


def why_no_wan(device: str) -> str:
    """What keeps the engine from running on this device, and the command that mends it; "" where nothing does.

    A command stands last, after "with: ", so that it can be copied.
    """
    from importlib.util import find_spec

    from ex4d.generate.wan.files import find_files
    from ex4d.machine import models_folder

    if find_spec("diffsynth") is None:
        return "the engine wan needs packages that are not installed; install them with: pip install 'ex4d[wan]'"
    try:
        if device == "cpu":
            from ex4d.generate.wan.wan_engine import require_small_model

            require_small_model(models_folder())
        find_files(models_folder())
    except WanUnavailableError:
        return NO_GPU
    except (ModelsMissingError, CheckpointError) as error:
        return str(error)
    return ""


def why_no_preset(name: str) -> str:
    """What a preset lacks on this machine, as `why_no_wan` says it; "" where that is nothing."""
    from ex4d.generate.wan.files import find_lora
    from ex4d.machine import models_folder
    from ex4d_core.shot import wan_preset

    try:
        for lora in wan_preset(name).loras:
            find_lora(models_folder(), lora.name)
    except ModelsMissingError as error:
        return f"the preset {name} needs more: {error}"
    return ""


__all__ = [
    "NO_GPU",
    "WAN_LICENCE",
    "CheckpointError",
    "GenerationError",
    "ModelsMissingError",
    "PromptError",
    "WanUnavailableError",
    "why_no_preset",
    "why_no_wan",
]
