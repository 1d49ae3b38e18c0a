"""Says about how long a final takes on a card and how much of its memory, before it is made."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ex4d.cli.options import ANSWER_SECONDS, backend_client
from ex4d.cli.report import Report
from ex4d_core.cards import Card
from ex4d_core.final_estimates import FinalEstimate, estimate_final, estimates_by_size
from ex4d_core.messages import Hello
from ex4d_core.shot import ShotRequest
from ex4d_core.sizes import size_text


def backend_card(options: argparse.Namespace) -> Card | None:
    """The GPU of the backend that the options name; None if it has none.

    Raises:
        ClientError: no backend replies there.
    """
    client = backend_client(options)
    try:
        return Card.first_of(client.ask(Hello("ex4d"), timeout=ANSWER_SECONDS).devices)
    finally:
        client.close()


def final_note(request: ShotRequest, card: Card, hidden: int) -> str:
    """What a final takes on a card, in a sentence.

    Args:
        request: for the engine wan.
        card: that generates it.
        hidden: frames of a lead-in.
    """
    camera = request.camera
    estimate = estimate_final(request.wan, len(camera), *camera.size, card, hidden=hidden)
    return f"estimate for {card.name}: {_in_words(estimate, card)}, besides loading weights"


def tell_sizes(request: ShotRequest, card: Card | None, hidden: int, report: Report) -> None:
    """Report what a final takes when it is generated at each of the named working sizes."""
    camera = request.camera
    estimates = estimates_by_size(request.wan, len(camera), *camera.size, card, hidden)
    report.add("sizes", {name: asdict(estimate) for name, estimate in estimates.items()}, "")
    for name, estimate in estimates.items():
        report.say(f"  generated at {name:10} {_in_words(estimate, card)}")


def _in_words(estimate: FinalEstimate, card: Card | None) -> str:
    from ex4d.pipeline.estimate import time_text

    if card is not None and not estimate.fits(card):
        return f"does not fit, it needs {size_text(estimate.gpu_least_bytes)} of GPU memory"
    most = estimate.gpu_bytes if card is None else min(estimate.gpu_bytes, card.memory_bytes)
    time = "time unknown" if estimate.seconds is None else time_text(estimate.seconds)
    return f"{time}, {size_text(most)} of GPU memory"
