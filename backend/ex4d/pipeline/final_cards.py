"""The card that a final take runs on, and what its estimate says of it."""

from __future__ import annotations

from ex4d.devices import Devices
from ex4d_core.cards import Card
from ex4d_core.final_estimates import FinalEstimate
from ex4d_core.sizes import size_text


def card_here(device: str) -> Card | None:
    """The GPU of this machine that a device means; None for a CPU."""
    names = Devices.parse(device).resolve().names if device != "cpu" else ("cpu",)
    if not names[0].startswith("cuda"):
        return None
    import torch

    properties = torch.cuda.get_device_properties(names[0])
    return Card.named(properties.name, properties.total_memory, len(names))


def wan_basis(final: FinalEstimate, card: Card | None) -> str:
    """Where the figures of a final's estimate come from, or why it cannot be made, for people."""
    if card is None:
        return "the engine wan needs an NVIDIA GPU, and there is none here"
    if not card.known:
        return f"no figure is known for the speed of {card.name}"
    if not final.fits(card):
        return (
            f"{card.name} has {size_text(card.memory_bytes)}, less than the {size_text(final.gpu_least_bytes)} that "
            "this needs: choose a smaller --working-size or a shorter --window"
        )
    return (
        f"time of wan on {card.name} is an estimate: counted operations, at rates measured on one H200 and scaled by "
        "data sheets; and loading from a fast disk"
    )
