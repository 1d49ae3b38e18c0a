"""The `wan` engine: Wan2.1-I2V-14B with EX-4D's LoRA and camera encoder, colour and mask to the final video.

In the order of the flow: `published` (which files there are), `files` (where they lie here), `checkpoints` and `lora`
(reading them), `models` (building the four networks), `conditioning` and `encoders` (a shot to what the transformer
takes), `denoising`, `decoding`, and `engine`, which tells the story. Importing this package needs neither diffsynth nor
a GPU; using the engine needs the extra `wan`.
"""

from backend.generate.wan.errors import (
    CheckpointError,
    GenerationError,
    ModelsMissingError,
    PromptError,
    WanUnavailableError,
)

__all__ = ["CheckpointError", "GenerationError", "ModelsMissingError", "PromptError", "WanUnavailableError"]
