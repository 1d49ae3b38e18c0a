"""GPUs by the names that their driver gives them: how fast each is by its data sheet, for estimates.

The engine wan was measured on an H200 (docs/measured/speed.md); what another card takes follows from the ratio of these
figures, so it is an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ex4d_core.stages import PAUSED

# As a backend describes its devices: "NVIDIA H200, 140 GiB (cuda:0)", and "(cuda:0+1)" where two share each shot.
_DEVICE = re.compile(r"(.+), (\d+) GiB \(cuda(?::(\d+(?:\+\d+)*))?\)")
# Parts of a card, or a slower one of the same name.
_OTHERS = {"mig", "laptop", "mobile", "max"}

# Words of a name, all of which it must have; dense TFLOP/s of matrix products in bf16 and in fp8, with sums in float32;
# 0: none.
_RATES: tuple[tuple[str, float, float], ...] = (
    ("b200", 2250, 4500),
    ("b100", 1800, 3500),
    ("h200", 989, 1979),
    ("gh200", 989, 1979),
    ("h100 pcie", 756, 1513),
    ("h100 nvl", 835, 1671),
    ("h100", 989, 1979),
    ("h800", 989, 1979),
    ("h20", 148, 296),
    ("a100", 312, 0),
    ("a800", 312, 0),
    ("a40", 150, 0),
    ("a10", 125, 0),
    ("a10g", 70, 0),
    ("l40s", 362, 733),
    ("l40", 181, 362),
    ("l4", 121, 242),
    ("rtx pro 6000", 504, 1008),
    ("rtx 6000 ada", 364, 729),
    ("rtx a6000", 155, 0),
    ("rtx a5000", 111, 0),
    ("rtx 5090", 210, 419),
    ("rtx 5080", 113, 225),
    ("rtx 5070 ti", 88, 176),
    ("rtx 4090 d", 147, 294),
    ("rtx 4090", 165, 330),
    ("rtx 4080 super", 104, 209),
    ("rtx 4080", 97, 195),
    ("rtx 4070 ti super", 88, 176),
    ("rtx 4070 ti", 80, 160),
    ("rtx 4070 super", 71, 142),
    ("rtx 4070", 58, 117),
    ("rtx 4060 ti", 44, 88),
    ("rtx 3090 ti", 80, 0),
    ("rtx 3090", 71, 0),
    ("rtx 3080 ti", 68, 0),
    ("rtx 3080", 60, 0),
)


@dataclass(frozen=True)
class Card:
    """A GPU, or several of one kind that share each shot.

    Attributes:
        name: as its driver has it.
        memory_bytes: of each.
        bf16, fp8: dense TFLOP/s by the data sheet; 0 where it cannot, or is not known.
        count: how many share a shot.
    """

    name: str
    memory_bytes: int
    bf16: float = 0.0
    fp8: float = 0.0
    count: int = 1

    @classmethod
    def named(cls, name: str, memory_bytes: int, count: int = 1) -> Card:
        """A card by its driver's name; without rates if it is not in the table."""
        words = set(re.split(r"[\s\-_/]+", name.lower()))
        for known, bf16, fp8 in _RATES:
            if words.issuperset(known.split()) and not words & _OTHERS:
                return cls(name, memory_bytes, bf16, fp8, count)
        return cls(name, memory_bytes, count=count)

    @classmethod
    def of_device(cls, described: str) -> Card | None:
        """The card in a backend's description of a device; None for a CPU."""
        found = _DEVICE.fullmatch(described.partition(PAUSED)[0])
        if found is None:
            return None
        return cls.named(found[1], int(found[2]) * 2**30, len((found[3] or "0").split("+")))

    @classmethod
    def first_of(cls, devices: Iterable[str]) -> Card | None:
        """The first GPU among a backend's descriptions of its devices; None if there is none."""
        return next((card for device in devices if (card := cls.of_device(device)) is not None), None)

    @property
    def known(self) -> bool:
        """Whether its rates are."""
        return self.bf16 > 0

    @property
    def short_name(self) -> str:
        """Without its maker, for people."""
        return re.sub(r"^NVIDIA (GeForce )?", "", self.name)


# What docs/measured/speed.md was measured on.
H200 = Card.named("NVIDIA H200", 140 * 2**30)
