"""Estimates the time and GPU memory of a final take on a card, from counted operations; needs no GPU and no torch.

The rates that the operations are divided by were measured on one H200 (docs/measured/speed.md), and are scaled to other
cards by `ex4d_core.cards`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ex4d_core.cards import H200, Card
from ex4d_core.final_sizes import generated_frames, generation_size, round_up_frames, window_lengths, with_lead_in
from ex4d_core.step_plan import pass_count
from ex4d_core.wan_settings import WORKING_SIZES, WanSettings

# The transformer of Wan2.1-14B: width, width within its feed-forward layers, and blocks; a token is 16x16 pixels of 4
# frames.
_WIDTH, _HIDDEN, _BLOCKS, _TOKEN_SIDE, _TOKEN_FRAMES = 5120, 13824, 40, 16, 4
# Measured on an H200, operations a second: matrix products and attention. That of attention in fp8 follows from a pass.
_MATMUL = {"bf16": 642e12, "fp8": 1240e12}
_ATTENTION = {"bf16": 591e12, "fp8": 858e12}
# What a pass took, by the time of its operations alone.
_OVERHEAD = {"bf16": 1.032, "fp8": 1.087}
# In float32 a pass takes about twice as long as in bf16.
_FLOAT32 = 2.0
# Encoding and decoding a window of 49 frames of 512x512, on an H200.
_MEASURED_TOKENS, _WINDOW_SECONDS = 13_312, 1.4
# GPU memory for full speed, at that size: no weights of steps are streamed (as `ex4d.generation.wan.memory` counts
# them); and for weights that are streamed from the host's memory.
_FULL_BYTES = {"fp8": 19.1e9, "bf16": 31.0e9, "float32": 55.7e9}
_STREAMED_BYTES, _BYTES_PER_TOKEN = 6.7e9, 250_000
# Of the transformer, and how fast they can be streamed: PCIe 4.0 with 16 lanes.
_WEIGHT_BYTES = {"fp8": 16.4e9, "bf16": 32.8e9, "float32": 65.6e9}
_STREAMED_PER_SECOND = 20e9


@dataclass(frozen=True)
class FinalEstimate:
    """What a final takes on a card.

    Attributes:
        seconds: of encoding, denoising and decoding, about, without loading weights; None where the card is not known.
        gpu_bytes: for full speed, about.
        gpu_least_bytes: below which it does not work.
        width, height: that images are generated at.
    """

    seconds: float | None
    gpu_bytes: int
    gpu_least_bytes: int
    width: int
    height: int

    def fits(self, card: Card) -> bool:
        """Whether the card has enough memory at all."""
        return self.gpu_least_bytes <= card.memory_bytes


def pass_operations(tokens: int) -> tuple[int, int]:
    """Operations of one pass of the transformer: of matrix products, and of self-attention."""
    matmul = _BLOCKS * tokens * (12 * _WIDTH**2 + 4 * _WIDTH * _HIDDEN)
    return matmul, _BLOCKS * 4 * tokens**2 * _WIDTH


def pass_seconds(tokens: int, settings: WanSettings, card: Card) -> float:
    """Seconds of one pass on one card that is known, with its weights on the card."""
    matmul, attention = pass_operations(tokens)
    of_bf16, of_fp8 = card.bf16 / H200.bf16, card.fp8 / H200.fp8
    in_fp8 = settings.precision == "fp8" and card.fp8 > 0
    attends_in_fp8 = in_fp8 and settings.fp8_attention
    seconds = matmul / (_MATMUL["fp8"] * of_fp8 if in_fp8 else _MATMUL["bf16"] * of_bf16)
    seconds += attention / (_ATTENTION["fp8"] * of_fp8 if attends_in_fp8 else _ATTENTION["bf16"] * of_bf16)
    seconds *= _OVERHEAD["fp8" if in_fp8 else "bf16"]
    return seconds * _FLOAT32 if settings.precision == "float32" else seconds


def estimate_final(
    settings: WanSettings,
    frames: int,
    width: int,
    height: int,
    card: Card | None,
    *,
    hidden: int = 0,
    pixel_aspect: float = 1.0,
) -> FinalEstimate:
    """What a final of a shot takes.

    Args:
        settings: of the engine wan.
        frames: of the shot.
        width, height: of the take.
        card: None where there is none, or it is not known.
        hidden: frames of a lead-in.
        pixel_aspect: width of a pixel by its height.
    """
    size = generation_size(settings, width, height, pixel_aspect)
    windows = list(_window_tokens(settings, frames, hidden, size))
    full = int(_FULL_BYTES[settings.precision] + _BYTES_PER_TOKEN * max(0, max(windows) - _MEASURED_TOKENS))
    least = int(_STREAMED_BYTES + _BYTES_PER_TOKEN * max(windows))
    seconds = None
    if card is not None and card.known:
        passes = pass_count(settings) / card.count
        streaming = _WEIGHT_BYTES[settings.precision] / _STREAMED_PER_SECOND if card.memory_bytes < full else 0.0
        each = (max(streaming, pass_seconds(tokens, settings, card)) for tokens in windows)
        other = _WINDOW_SECONDS * sum(windows) / _MEASURED_TOKENS * H200.bf16 / card.bf16
        seconds = passes * sum(each) + other
    return FinalEstimate(seconds, full, least, *size)


def estimates_by_size(
    settings: WanSettings, frames: int, width: int, height: int, card: Card | None, hidden: int = 0
) -> dict[str, FinalEstimate]:
    """`estimate_final` of a shot at each of the named working sizes, generated at them."""
    result = {}
    for name, (across, down) in WORKING_SIZES.items():
        sized = replace(settings, max_pixels=across * down, above_model="generate")
        result[name] = estimate_final(sized, frames, width, height, card, hidden=hidden)
    return result


def _window_tokens(settings: WanSettings, frames: int, hidden: int, size: tuple[int, int]) -> Iterable[int]:
    generated = generated_frames(frames, settings.stride)
    of_latent = 1
    for side in size:
        of_latent *= -(-side // _TOKEN_SIDE)
    for length in window_lengths(generated + hidden, with_lead_in(settings, generated, hidden)):
        yield ((round_up_frames(max(5, length)) - 1) // _TOKEN_FRAMES + 1) * of_latent
