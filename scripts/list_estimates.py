"""Prints about what a final takes on some cards at each working size: the table of docs/how-to/finals.md.

python scripts/list_estimates.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d_core.cards import H200, Card  # noqa: E402
from ex4d_core.final_estimates import FinalEstimate, estimates_by_size  # noqa: E402
from ex4d_core.sizes import size_text  # noqa: E402
from ex4d_core.wan_settings import wan_preset  # noqa: E402

FRAMES, SIZE = 49, (1920, 1080)
CARDS = (
    H200,
    Card.named("NVIDIA H100 80GB HBM3", 79 * 2**30),
    Card.named("NVIDIA A100-SXM4-80GB", 79 * 2**30),
    Card.named("NVIDIA GeForce RTX 5090", 31 * 2**30),
    Card.named("NVIDIA GeForce RTX 4090", 24 * 2**30),
    Card.named("NVIDIA GeForce RTX 3090", 24 * 2**30),
)


def table() -> Iterator[str]:
    """The lines of the table: a working size each, and time on each card."""
    estimates = [estimates_by_size(wan_preset("standard"), FRAMES, *SIZE, card) for card in CARDS]
    yield f"| working size | generated at | GPU memory | {' | '.join(card.short_name for card in CARDS)} |"
    yield "|---" * (3 + len(CARDS)) + "|"
    for name, first in estimates[0].items():
        memory = f"{size_text(first.gpu_least_bytes)} to {size_text(first.gpu_bytes)}"
        times = [_minutes(of_card[name], card) for of_card, card in zip(estimates, CARDS, strict=True)]
        yield f"| `{name}` | {first.width}x{first.height} | {memory} | {' | '.join(times)} |"


def _minutes(estimate: FinalEstimate, card: Card) -> str:
    seconds = estimate.seconds
    assert seconds is not None, "all of these cards are known"
    if not estimate.fits(card):
        return "too small"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    print("\n".join(table()))
