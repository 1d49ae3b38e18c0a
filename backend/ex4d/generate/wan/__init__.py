"""The engine `wan`: Wan2.1-I2V-14B with EX-4D's LoRA and camera encoder, from colour and mask to the final video.

In the order of the flow: `published` (the catalogue of files), `files` (where they are on this machine), `checkpoints`
and `lora` (read them), `networks` with `camera_encoder` (build and load the four networks), `loaded_networks` with
`memory` and `streaming` (keep them on the GPU), `conditioning` and `encoders` (the transformer's inputs), `transformer`
and `transformer_block` (predict the velocity, with `kernels` and `parallel`), `denoising`, `decoding`, and `wan_engine`
(the whole flow). Importing this package needs neither diffsynth nor a GPU; running the engine needs the extra `wan`.
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
