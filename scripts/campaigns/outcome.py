"""`Outcome`: what a campaign did and found, in one line."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """The result of a campaign.

    Attributes:
        figures: what was done and measured, in the order in which it is shown.
        breaches: each broken promise, in a sentence.
    """

    figures: dict[str, int | float | str] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)

    def require(self, kept: bool, breach: str) -> None:
        """Note a breach unless a promise was kept."""
        if not kept:
            self.breaches.append(breach)

    def line(self, name: str, seed: int) -> str:
        """The summary."""
        figures = ", ".join(f"{key} {value}" for key, value in self.figures.items())
        return f"{name} seed {seed}: {figures}; {len(self.breaches) or 'no'} breaches"
