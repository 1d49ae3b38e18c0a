"""Generation engines: from the rendered colour and mask of a shot to its final frames.

`engine` has the interface of all engines, `engine_choice` creates the one that a request names, `preview` is the quick
one that runs anywhere, `wan` the video diffusion model.
"""

from ex4d.generation.engine import Engine, EngineState, GenerationProgress, ProgressCallback, UnroundedCallback
from ex4d.generation.engine_choice import create_engine
from ex4d.generation.preview import PreviewEngine

__all__ = [
    "Engine",
    "EngineState",
    "GenerationProgress",
    "PreviewEngine",
    "ProgressCallback",
    "UnroundedCallback",
    "create_engine",
]
