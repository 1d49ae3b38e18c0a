"""The engine `wan`: Wan2.1-I2V-14B with EX-4D's LoRA and camera encoder, from colour and mask to the final video.

In the order of the flow: `networks` with `camera_encoder` (build and load the four networks, from `ex4d.weights`),
`loaded_networks` with `converted_networks`, `kept_networks`, `memory` and `streaming` (load them faster the next time,
and keep them on the GPU), `conditioning` and `encoders` (the transformer's inputs), `transformer` and
`transformer_block` (predict the velocity, with `kernels` and `parallel`), `denoising`, `decoding`, and `wan_engine`
(the whole flow); `arithmetic` says what a precision is on a device, `progress_report` and `work_parts` how far the work
is. Importing this package needs neither diffsynth nor a GPU; running the engine needs the extra `wan`.
"""

from collections.abc import Callable

from ex4d.generation.wan.errors import GenerationError, PromptError, WanUnavailableError
from ex4d.installation import install_command
from ex4d.machine import MachineSettings
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.places import find_lora
from ex4d.weights.wan_files import WanFiles, find_wan_files
from ex4d_core.wan_settings import WanPreset, wan_preset

WAN_LICENCE = "Wan2.1 and DiffSynth: Apache-2.0, for any work; EX-4D's weights: see their page"
NO_GPU = "the engine wan needs an NVIDIA GPU that PyTorch can use, and there is none here"

# Without a GPU, a larger transformer would take hours for each step.
_CPU_BYTES = 4 * 2**30


def why_no_wan(device: str, machine: MachineSettings) -> str:
    """Why the engine cannot run on this device, and the command that fixes it; "" if it can.

    A command comes last, after "with: ", so that it can be copied.
    """
    from importlib.util import find_spec

    if find_spec("diffsynth") is None:
        if device == "cpu":  # the packages would not help
            return NO_GPU
        return f"the engine wan needs packages that are not installed; install them with: {install_command('wan')}"
    try:
        if device == "cpu":
            require_small_model(lambda: find_wan_files(machine.models, further=machine.model_path))
        find_wan_files(machine.models, further=machine.model_path)
    except WanUnavailableError:
        return NO_GPU
    except (WeightsMissingError, CheckpointError) as error:
        return str(error)
    return ""


def why_no_preset(name: WanPreset, machine: MachineSettings) -> str:
    """What a preset lacks on this machine, as `why_no_wan` says it; "" if nothing."""
    try:
        for lora in wan_preset(name).loras:
            find_lora(machine.models, lora.name, machine.model_path)
    except WeightsMissingError as error:
        return f"the preset {name} needs more: {error}"
    return ""


def require_small_model(find: Callable[[], WanFiles]) -> None:
    """Check that the transformer is small enough for a CPU.

    Args:
        find: finds the weights, or raises as `find_wan_files` does.

    Raises:
        WanUnavailableError: it is larger, or missing.
    """
    message = f"{NO_GPU}: use --engine preview, which runs anywhere, or --backend ADDRESS of a machine with one"
    try:
        files = find()
    except (WeightsMissingError, CheckpointError) as error:
        raise WanUnavailableError(f"{message}. Also, {error}") from error
    if sum(path.stat().st_size for path in files.dit) > _CPU_BYTES:
        raise WanUnavailableError(message)


__all__ = [
    "NO_GPU",
    "WAN_LICENCE",
    "GenerationError",
    "PromptError",
    "WanUnavailableError",
    "require_small_model",
    "why_no_preset",
    "why_no_wan",
]
