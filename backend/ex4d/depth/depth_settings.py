"""The settings of estimated depth: which estimator runs, and how its blurred edges are refined.

Those of Blender's mist pass are `ex4d_core.sources.MistPass`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ex4d.machine import MachineSettings
from ex4d_core.licences import Licence

AUTO = "auto"


@dataclass(frozen=True)
class EdgeSettings:
    """What counts as a blurred edge, and how its pixels choose a side.

    Attributes:
        reach: pixels of the depth's own size to either side of an edge in which its surfaces are looked for.
        step: ratio of far to near from which on a slope is an edge.
        slope: share of disparity by which an edge rises at least, a pixel of the depth's own size.
        end: share of an edge's steepest rise above which it has not ended.
        sharp: width of an edge, in pixels of the image, under which it is not blurred: its step over its steepest rise.
        widest: width, in pixels of the depth's own size, from which on a slope is a true one.
        colour: difference of colours (of 1, over three channels) that counts as much as lying at a slope's end.
        colour_weight: 0 goes by depth alone.
    """

    reach: int = 16
    step: float = 1.06
    slope: float = 0.005
    end: float = 1 / 3
    sharp: float = 1.7
    widest: float = 20.0
    colour: float = 0.15
    colour_weight: float = 0.5


@dataclass(frozen=True)
class EstimatorSettings:
    """Which estimator is wanted, and under which conditions.

    Attributes:
        name: of a model, or "auto".
        machine: where weights are, and what results of this machine are for.
        licence: what the result is for, by the request; see `ex4d_core.licences.effective_licence`.
        device: "auto", "cpu", or "cuda" with an optional number.
        edges: how blurred edges are refined; None leaves them.
        noise_filter: whether depth whose pixels are noisy is smoothed.
        temporal_alignment: whether the depth of per-image models is aligned over time.
        normalized_focal: the focal length over the image's width, where it is known.
        full_precision: float32 on a GPU, too: twice the memory and less than half the speed.
    """

    name: str = AUTO
    machine: MachineSettings = field(default_factory=MachineSettings.from_environment)
    licence: Licence | None = None
    device: str = "auto"
    edges: EdgeSettings | None = EdgeSettings()
    noise_filter: bool = True
    temporal_alignment: bool = True
    normalized_focal: float | None = None
    full_precision: bool = False
