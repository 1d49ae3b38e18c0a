"""Requests for passes: a shot rendered for compositing, as images with colour, alpha and depth, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ex4d_core.errors import RequestError
from ex4d_core.output_settings import SEQUENCES
from ex4d_core.shot import ShotRequest

PASSES_KIND = "passes"


@dataclass(frozen=True)
class PassesRequest:
    """Passes to render of a shot: what its camera sees of the footage, before an engine fills in the rest.

    Attributes:
        shot: scene, camera, frames, render and output; the output is a sequence of images.

    Raises:
        RequestError: the output is no sequence of more than 8 bits.
    """

    shot: ShotRequest

    def __post_init__(self) -> None:
        if not self.shot.output.is_sequence:
            raise RequestError(
                f"passes are images of more than 8 bits ({' or '.join(SEQUENCES)}), not {self.shot.output.format}"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the images, in order."""
        return self.shot.deep_files

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack."""
        return {"kind": PASSES_KIND, "shot": self.shot.to_wire()}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> PassesRequest:
        """Check and rebuild what `to_wire` gave.

        Raises:
            RequestError: see `ShotRequest.from_wire`.
        """
        if strange := sorted(map(str, values.keys() - {"kind", "shot"})):
            raise RequestError(f"unknown field {strange[0]!r:.80} of passes; update the backend if the client is newer")
        return cls(ShotRequest.from_wire(values.get("shot")))

    # A job list shows passes beside takes.
    engine = PASSES_KIND

    @property
    def scene(self) -> str:
        """Of the shot."""
        return self.shot.scene

    @property
    def label(self) -> str:
        """Of the shot."""
        return self.shot.label
