"""How masks are simulated: the distributions of camera moves and of hidden regions.

The paper (arXiv 2506.05554) tells both kinds of masks in outline only, and none of its numbers for them are public:
every default here is this project's own choice. docs/how-to/datasets.md has the reason for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ex4d_core.errors import RequestError
from ex4d_core.render_settings import MAX_SAMPLES
from ex4d_core.schema import Option, Range, Settings
from ex4d_core.trajectories import PRESETS, is_degrees

Balance = Literal["angle", "unseen"]
TrackSource = Literal["auto", "mesh", "flow"]
BALANCES: tuple[str, ...] = get_args(Balance)

Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1000)]

# Zooms in hide nothing, and circles have a kind of their own.
TRAVELLING = tuple(name for name in PRESETS if name not in ("30", "60", "90", "orbit", "zoom_in"))


@dataclass(frozen=True)
class MoveSettings(Settings):
    """The distribution of camera moves that rendering masks are seen along.

    Attributes:
        orbit_weight, preset_weight, free_weight: how often each kind of move is drawn, relative to each other: circles
            around the subject; presets of `ex4d_core.trajectories`; free smooth paths that look at the subject.
        orbit: smallest and largest angle of circles, degrees, positive to the right.
        elevation: smallest and largest climb of circles, degrees.
        zoom: smallest and largest factor of the focal length, reached at the end of any move.
        presets: which of them, by name or degrees; none for all that travel or turn.
        amount: smallest and largest share of a preset's default amount; of zooms, of what their factor has above 1.
        reach: smallest and largest distance that free paths go, as a share of the subject's distance.
        turn: degrees that free paths look beside the subject, at most.
        unseen: smallest and largest unseen share, the mean of all frames, that a mask may have; others are drawn again.
        balance: "angle" takes moves as they are drawn; "unseen" makes the unseen share even between its limits, by the
            strength of each drawn move.
        tries: moves that are drawn for one mask until its unseen share is within the limits.
        samples: rays of each pixel, per axis; takes have 3.
        morphology: smallest and largest radius, pixels, within which specks and slits of a mask are removed; drawn for
            each mask.

    Raises:
        RequestError: a field of the wrong type or out of range, limits in the wrong order, or a preset that is unknown
            or turns by 0 degrees.
    """

    orbit_weight: Annotated[Weight, Option("how often masks are of circles around the subject", metavar="W")] = 0.6
    preset_weight: Annotated[Weight, Option("how often masks are of camera presets", metavar="W")] = 0.2
    free_weight: Annotated[Weight, Option("how often masks are of free smooth paths", metavar="W")] = 0.2
    orbit: Annotated[
        tuple[Annotated[float, Range(-180, 180)], Annotated[float, Range(-180, 180)]],
        Option("angles of circles, degrees", metavar="LOW,HIGH"),
    ] = (-90.0, 90.0)
    elevation: Annotated[
        tuple[Annotated[float, Range(-80, 80)], Annotated[float, Range(-80, 80)]],
        Option("climb of circles, degrees", metavar="LOW,HIGH"),
    ] = (-30.0, 30.0)
    zoom: Annotated[
        tuple[Annotated[float, Range(0.1, 10)], Annotated[float, Range(0.1, 10)]],
        Option("factor of the focal length at the end of moves", metavar="LOW,HIGH"),
    ] = (0.8, 1.25)
    presets: Annotated[
        tuple[str, ...],
        Option(
            "camera preset to draw from; repeatable (default: all that travel or turn)",
            metavar="PRESET",
            flag="--mask-preset",
        ),
    ] = ()
    amount: Annotated[
        tuple[Annotated[float, Range(0, 3)], Annotated[float, Range(0, 3)]],
        Option("amount of presets, of their default", metavar="LOW,HIGH"),
    ] = (0.3, 1.5)
    reach: Annotated[
        tuple[Annotated[float, Range(0, 2)], Annotated[float, Range(0, 2)]],
        Option("how far free paths go, of the subject's distance", metavar="LOW,HIGH"),
    ] = (0.1, 0.6)
    turn: Annotated[float, Range(0, 45), Option("how far free paths look beside the subject", metavar="DEGREES")] = 5.0
    unseen: Annotated[
        tuple[Share, Share], Option("unseen share that masks may have, mean of all frames", metavar="LOW,HIGH")
    ] = (0.02, 0.7)
    balance: Annotated[
        Balance, Option("angle: moves as they are drawn; unseen: their strength makes the unseen share even")
    ] = "angle"
    tries: Annotated[int, Range(1, 100), Option("moves drawn for a mask until its unseen share fits")] = 8
    samples: Annotated[
        int, Range(1, MAX_SAMPLES), Option("rays of each pixel of a mask, per axis", flag="--mask-samples", metavar="N")
    ] = 3
    morphology: Annotated[
        tuple[Annotated[int, Range(0, 16)], Annotated[int, Range(0, 16)]],
        Option("radius within which specks and slits of masks are removed, pixels", metavar="LOW,HIGH"),
    ] = (0, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ordered(self, "orbit", "elevation", "zoom", "amount", "reach", "unseen", "morphology")
        if self.orbit_weight + self.preset_weight + self.free_weight <= 0:
            raise RequestError("orbit_weight, preset_weight and free_weight are all 0: one must be above 0")
        for name in self.presets:
            if is_degrees(name) and not float(name):
                raise RequestError(f"camera preset {name!r} in presets turns by 0 degrees: choose more, such as 30")
            if name not in PRESETS and not is_degrees(name):
                raise RequestError(
                    f"unknown camera preset {name!r:.80} in presets: expected a number of degrees or one of "
                    f"{', '.join(PRESETS)}"
                )


@dataclass(frozen=True)
class RegionSettings(Settings):
    """The distribution of hidden regions of tracking masks, which stay with the scene points that they hide.

    Attributes:
        regions: fewest and most regions of a mask.
        region_size: smallest and largest radius of a region when it is fully open, as a share of the shorter side.
        at_edges: share of the regions that begin behind a discontinuity in depth, as holes of real moves do.
        tracks: "mesh" follows points by the clip's depth and camera, "flow" by optical flow; "auto" takes the mesh
            where the camera is known.
        depth_tolerance: with "mesh": how far a point may lie from a frame's surface, as a share of its depth, and still
            be the same point.
        flow_error: with "flow": how far a track may miss its start when it is followed forwards and backwards, pixels.

    Raises:
        RequestError: a field of the wrong type or out of range, or limits in the wrong order.
    """

    regions: Annotated[
        tuple[Annotated[int, Range(1, 20)], Annotated[int, Range(1, 20)]],
        Option("hidden regions of a tracking mask", metavar="LOW,HIGH"),
    ] = (1, 5)
    region_size: Annotated[
        tuple[Share, Share], Option("radius of hidden regions, of the shorter side", metavar="LOW,HIGH")
    ] = (0.08, 0.35)
    at_edges: Annotated[Share, Option("share of hidden regions that begin behind an edge in depth")] = 0.5
    tracks: Annotated[
        TrackSource,
        Option("what hidden regions follow: mesh, flow, or auto: the mesh where the camera is known"),
    ] = "auto"
    depth_tolerance: Annotated[
        float, Range(0.001, 1), Option("distance from a frame's surface that is the same point, of its depth")
    ] = 0.05
    flow_error: Annotated[
        float, Range(0.1, 20), Option("how far a track may miss its start, forwards and backwards, pixels")
    ] = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ordered(self, "regions", "region_size")


def require_ordered(settings: Settings, *names: str) -> None:
    """Raise RequestError for the first of some pairs whose first number is above its second."""
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise RequestError(f"{name} must be its smallest, then its largest value, not {low:g},{high:g}")
