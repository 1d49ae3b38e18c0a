"""Refines blurred depth edges: a pixel between two surfaces joins one of them.

Models that see an image at a bounded size blur silhouettes, and a mesh draws such a blur as stretched faces from the
near surface to the far one. Here each pixel of such a blur takes the depth of the nearer or the farther surface, by
where it lies between them and by which of them it resembles in colour. The same step upsamples depth of a smaller size
to the image's own.

All of it is done in disparity, in which planes are linear: ground that is seen at a grazing angle rises evenly, while a
blurred edge rises most in its middle and has a surface at either end. Depth whose edges are sharp is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, pi, sqrt

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.depth_settings import EdgeSettings

# Of a step blurred by a Gaussian: what it rises by, over its steepest rise, in sigma.
_WIDTH_OF_SIGMA = sqrt(2 * pi)
_SURFACE = 2.4  # sigma from the middle of an edge at which its surfaces are read; 1.6 % of the step is left there
_BEYOND = 1.5  # pixels further, by which a gradient's neighbourhood reaches
_STEEPER = 1.2  # times as steep as its middle: what lies across is another edge
_UNLIKE = 2.0  # an edge this much wider than the frame's typical one is a true slope
_BEND = 0.25  # share of the step by which a surface may go on rising under its edge
_HOPS = 3  # doublings of one pixel: how far along a thin thing its full height is looked for
_AT_ONCE = 2**16  # edges that are looked at together, so that memory does not grow with the image
_NONE = 2**62


def refined_depth(
    depth: torch.Tensor, image: np.ndarray, settings: EdgeSettings | None, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Depth of a model's size at the image's size, its edges where the image's are.

    Args:
        depth: (h, w) float32 along z, above 0.
        image: (H, W, 3) uint8.
        settings: None leaves edges as smooth as they are.

    Returns:
        (H, W) float32, within the range of `depth`; `depth` itself, bit by bit, where no edge is blurred.
    """
    size = image.shape[:2]
    depth = depth.to(device)
    disparity = 1 / depth
    bounds = disparity.min(), disparity.max()
    factor = max(size[0] / depth.shape[0], size[1] / depth.shape[1], 1.0)
    resized = disparity
    if depth.shape != size:
        shrinks = size[0] < depth.shape[0] or size[1] < depth.shape[1]
        # In disparity, in which models are smooth, so that a far side of any depth does not eat into the near one.
        resized = F.interpolate(disparity[None, None], size, mode="bilinear", antialias=shrinks)[0, 0]
    refined = resized
    edges = None if settings is None else _blurred_edges(resized, settings, factor)
    if settings is not None and edges is not None:
        colour = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
        refined = _snapped(resized, colour, edges, settings)
    if refined is disparity:
        return depth.cpu().numpy()
    found = 1 / refined.clamp(*bounds)
    # Pixels that nothing has moved keep their last bit.
    return (torch.where(refined == disparity, depth, found) if depth.shape == size else found).cpu().numpy()


@dataclass(frozen=True)
class _Side:
    """The surface at one end of S edges.

    Attributes:
        steps: (S,) int64, pixels from an edge's middle to where the surface is read.
        place: (S, 2) x and y, where that is.
        value: (S,) disparity there.
        gradient: (S, 2) of disparity, a pixel; 0 on the ridge of a thin thing.
    """

    steps: torch.Tensor
    place: torch.Tensor
    value: torch.Tensor
    gradient: torch.Tensor

    def under(self, points: torch.Tensor, bend: torch.Tensor) -> torch.Tensor:
        """(S,) disparity of the plane through the surface at points (S, 2); `bend` (S,) limits its change."""
        change = (self.gradient * (points - self.place)).sum(dim=1)
        return self.value + torch.minimum(torch.maximum(change, -bend), bend)

    def of(self, which: torch.Tensor) -> _Side:
        """Those of some edges."""
        return _Side(self.steps[which], self.place[which], self.value[which], self.gradient[which])


@dataclass(frozen=True)
class _Edges:
    """S places in the middle of blurred edges.

    Attributes:
        middle: (S, 2) x and y.
        nearer: (S, 2), the unit vector in which disparity rises.
        near: the surface there.
        far: the one on the other side.
    """

    middle: torch.Tensor
    nearer: torch.Tensor
    near: _Side
    far: _Side

    @property
    def bend(self) -> torch.Tensor:
        """(S,), what planes may rise by between where they are read and the edge."""
        return _BEND * (self.near.value - self.far.value)

    def of(self, which: torch.Tensor) -> _Edges:
        """Some of them."""
        return _Edges(self.middle[which], self.nearer[which], self.near.of(which), self.far.of(which))


@dataclass(frozen=True)
class _Profiles:
    """Disparity along lines across S likely edges.

    Attributes:
        middle: (S, 2) x and y, where disparity is steepest.
        nearer: (S, 2), the unit vector in which it rises.
        values: (S, 2 reach + 1) disparity at every pixel of the line, `middle` in its middle.
    """

    middle: torch.Tensor
    nearer: torch.Tensor
    values: torch.Tensor

    @property
    def reach(self) -> int:
        """Pixels to either side."""
        return self.values.shape[1] // 2

    def rise(self, sign: int) -> torch.Tensor:
        """(S, reach), from pixel to pixel outwards, on the near side (1) or the far side (-1)."""
        rise = self.values.diff(dim=1)
        return rise[:, self.reach :] if sign > 0 else rise[:, : self.reach].flip(1)

    @property
    def peak(self) -> torch.Tensor:
        """(S,), the rise in the middle."""
        return torch.maximum(self.rise(1)[:, 0], self.rise(-1)[:, 0])

    def at(self, steps: torch.Tensor) -> torch.Tensor:
        """(S,) values some steps (S,) towards the near side."""
        return self.values.gather(1, self.reach + steps[:, None])[:, 0]

    def of(self, which: torch.Tensor) -> _Profiles:
        """Those of some edges."""
        return _Profiles(self.middle[which], self.nearer[which], self.values[which])

    def limit(self, sign: int, end: float) -> torch.Tensor:
        """(S,) steps after which something else begins: disparity turns, or gets steeper again behind an end."""
        rise = self.rise(sign)
        before, behind = F.pad(rise[:, :-1], (1, 0), value=torch.inf), F.pad(rise[:, 1:], (0, 1), value=-torch.inf)
        is_dip = (rise < end * self.peak[:, None]) & (behind > 1.05 * rise) & (before >= rise)
        return _first((rise <= 0) | is_dip)

    def is_steepest(self, sign: int, steps: torch.Tensor) -> torch.Tensor:
        """(S,) whether nothing on the way to `steps` (S,) pixels outwards is steeper than the middle."""
        rise = self.rise(sign)
        on_the_way = torch.arange(rise.shape[1], device=rise.device) < steps[:, None]
        return torch.where(on_the_way, rise, 0).amax(dim=1) < _STEEPER * self.peak

    def typical_width(self, settings: EdgeSettings) -> float | None:
        """Median of the edges' widths, in pixels: the step over its steepest rise. None without a blurred edge."""
        steps, has_end = [], torch.ones_like(self.peak, dtype=torch.bool)
        for sign in (1, -1):
            is_end = self.rise(sign) < settings.end * self.peak[:, None]
            # At a third of its peak, a blur is half way from its middle to its end.
            twice = (2 * _first(is_end).clamp_min(1)).clamp_max(self.reach - 1)
            steps.append(sign * torch.minimum(twice, self.limit(sign, settings.end)))
            has_end &= is_end.any(dim=1) & self.is_steepest(sign, _first(is_end))
        near, far = self.at(steps[0]), self.at(steps[1])
        is_edge = has_end & (near > settings.step * far)
        widths = ((near - far) / self.peak)[is_edge].sort().values
        # Where a good part of all edges is sharp, no model has blurred the others.
        if len(widths) == 0 or widths[len(widths) // 4] < settings.sharp:
            return None
        return float(widths[len(widths) // 2])


def _blurred_edges(disparity: torch.Tensor, settings: EdgeSettings, factor: float) -> _Edges | None:
    """Edges of a frame that models have blurred; None where its edges are sharp, or it has none.

    Args:
        disparity: (H, W).
        settings: what counts as an edge.
        factor: how much larger the image is than the model's map.
    """
    gradient = _gradient(disparity)
    middle, nearer = _steepest(disparity, gradient, settings.slope / factor)
    if len(middle) == 0:
        return None
    some, reach = slice(None, None, 1 + len(middle) // _AT_ONCE), ceil(settings.reach * factor)
    typical = _profiles(disparity, middle[some], nearer[some], reach).typical_width(settings)
    if typical is None:
        return None
    sigma = typical / _WIDTH_OF_SIGMA
    surface = min(ceil(_SURFACE * sigma + _BEYOND), reach - 1)
    widest = min(_UNLIKE * typical, settings.widest * factor)
    found = []
    for part in zip(middle.split(_AT_ONCE), nearer.split(_AT_ONCE), strict=True):
        profiles = _profiles(disparity, *part, surface + 2)
        near, far = (_side(profiles, gradient, sign, surface, sigma, settings.end) for sign in (1, -1))
        edges = _Edges(*part, near, far)
        low, high = far.under(edges.middle, edges.bend), near.under(edges.middle, edges.bend)
        width = (high - low) / profiles.peak
        is_edge = (high > settings.step * low) & (width > settings.sharp) & (width < widest)
        for sign, side in ((1, near), (-1, far)):
            rise = profiles.rise(sign).gather(1, side.steps[:, None])[:, 0]
            is_edge &= (rise < settings.end * profiles.peak) & profiles.is_steepest(sign, side.steps)
        found.append(edges.of(torch.nonzero(is_edge)[:, 0]))
    edges = _joined(found)
    return _with_full_height(edges, disparity, sigma) if len(edges.middle) else None


def _profiles(disparity: torch.Tensor, middle: torch.Tensor, nearer: torch.Tensor, reach: int) -> _Profiles:
    """Across places (S, 2) in directions (S, 2), some pixels far to either side."""
    steps = torch.arange(-reach, reach + 1, device=disparity.device)
    places = middle[:, None] + steps[None, :, None] * nearer[:, None]
    return _Profiles(middle, nearer, _sampled(disparity[None], places)[0])


def _joined(parts: list[_Edges]) -> _Edges:
    """All edges of several parts, in order."""

    def side(sides: list[_Side]) -> _Side:
        fields = zip(*((one.steps, one.place, one.value, one.gradient) for one in sides), strict=True)
        return _Side(*map(torch.cat, fields))

    return _Edges(
        torch.cat([part.middle for part in parts]),
        torch.cat([part.nearer for part in parts]),
        side([part.near for part in parts]),
        side([part.far for part in parts]),
    )


def _steepest(disparity: torch.Tensor, gradient: torch.Tensor, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, 2) places that are steeper than those before and behind them, and the unit vectors towards the near side."""
    size = torch.hypot(*gradient)
    rows, columns = torch.nonzero(size > least * disparity, as_tuple=True)
    middle = torch.stack([columns, rows], dim=1).to(disparity)
    own = size[rows, columns]
    nearer = gradient[:, rows, columns].T / own[:, None]
    beside = _sampled(size[None], torch.stack([middle + nearer, middle - nearer]))[0]
    keep = (own >= beside).all(dim=0)
    return middle[keep], nearer[keep]


def _side(profiles: _Profiles, gradient: torch.Tensor, sign: int, surface: int, sigma: float, end: float) -> _Side:
    """The surfaces on the near side (1) or the far side (-1) of edges that are blurred by sigma pixels.

    They are read `surface` pixels from the middle, or before, where something else begins.
    """
    limit = profiles.limit(sign, end)
    steps = limit.clamp_max(surface)
    place = profiles.middle + sign * steps[:, None] * profiles.nearer
    # What the blur itself still rises by there is not the surface's.
    blur = profiles.peak * torch.exp(-((steps / sigma) ** 2) / 2)
    slope = _sampled(gradient, place).T - profiles.nearer * blur[:, None]
    return _Side(steps, place, profiles.at(sign * steps), slope.where((steps < limit)[:, None], slope.new_zeros(())))


def _with_full_height(edges: _Edges, disparity: torch.Tensor, sigma: float) -> _Edges:
    """A blurred thin thing is lower than it was: it takes the height that it has where it is widest, near by."""

    def full(side: _Side, sign: int) -> _Side:
        rising = (sign * disparity)[None, None]
        top = F.max_pool2d(rising, 3, stride=1, padding=1, return_indices=True)[1].flatten()
        for _ in range(_HOPS):
            top = top[top]
        height, width = disparity.shape
        x, y = side.place.round().long().unbind(dim=1)
        best = disparity.flatten()[top[y.clamp(0, height - 1) * width + x.clamp(0, width - 1)]]
        is_thin = (side.gradient == 0).all(dim=1) & (side.steps < _SURFACE * sigma)
        return replace(side, value=torch.where(is_thin, best, side.value))

    return replace(edges, near=full(edges.near, 1), far=full(edges.far, -1))


def _snapped(disparity: torch.Tensor, colour: torch.Tensor, edges: _Edges, settings: EdgeSettings) -> torch.Tensor:
    """Every pixel across an edge takes the value of the near surface or the far one.

    Args:
        disparity: (H, W).
        colour: (3, H, W) in [0, 1].
        edges: at least one.
        settings: how much colour counts.
    """
    place, which = _nearest_edges(edges, disparity.shape)
    own, height_width = disparity.flatten(), disparity.shape
    points = torch.stack([place % height_width[1], place // height_width[1]], dim=1).to(disparity)
    edge = edges.of(which)
    near, far = edge.near.under(points, edge.bend), edge.far.under(points, edge.bend)
    votes = (2 * (own[place] - far) / (near - far).clamp_min(1e-12) - 1).clamp(-1.2, 1.2)
    if settings.colour_weight:
        smooth = F.avg_pool2d(colour, 3, stride=1, padding=1, count_include_pad=False)
        mine = colour.flatten(1)[:, place]
        unlike_near, unlike_far = (
            (mine - _sampled(smooth, side.place)).square().sum(dim=0) for side in (edge.near, edge.far)
        )
        votes += settings.colour_weight * torch.tanh((unlike_far - unlike_near) / settings.colour**2)
    snapped = own.clone()
    snapped[place] = torch.where(near > far, torch.where(votes > 0, near, far), own[place])
    return snapped.view(height_width)


def _nearest_edges(edges: _Edges, size: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (N,) of an image (H, W), counted row by row, that lie across edges; and the nearest edge (N,) of each."""
    height, width = size
    count, device = len(edges.middle), edges.middle.device
    longest = int(torch.maximum(edges.near.steps, edges.far.steps).max())
    steps = torch.arange(-longest, longest + 1, device=device)
    best = torch.full((height * width,), _NONE, dtype=torch.int64, device=device)
    for part in torch.arange(count, device=device).split(_AT_ONCE):
        across = (steps <= edges.near.steps[part, None]) & (steps >= -edges.far.steps[part, None])
        row, step = torch.nonzero(across, as_tuple=True)
        which = part[row]
        corner = (edges.middle[which] + steps[step, None] * edges.nearer[which]).floor().long()
        for offset in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixel = corner + torch.tensor(offset, device=device)
            distance = (16 * torch.hypot(*(pixel - edges.middle[which]).T)).long()
            inside = ((pixel >= 0) & (pixel < pixel.new_tensor([width, height]))).all(dim=1)
            # The distance decides, and among equals the first edge, in whatever order they are written.
            place, key = pixel[:, 1] * width + pixel[:, 0], distance * count + which
            best.scatter_reduce_(0, place[inside], key[inside], "amin")
    place = torch.nonzero(best < _NONE)[:, 0]
    return place, best[place] % count


def _gradient(values: torch.Tensor) -> torch.Tensor:
    """(2, H, W) change of values (H, W) a pixel along x and y, over three rows or columns (Sobel)."""
    padded = F.pad(values[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 8
    columns = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 8
    return torch.stack([rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]])


def _sampled(maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Maps (C, H, W) at places (..., 2), x and y in pixels from the first one's centre: (C, ...), bilinear."""
    size = places.new_tensor([maps.shape[2], maps.shape[1]])
    grid = ((2 * places + 1) / size - 1).reshape(1, -1, 1, 2)
    found = F.grid_sample(maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.reshape(maps.shape[0], *places.shape[:-1])


def _first(is_so: torch.Tensor) -> torch.Tensor:
    """(S,) index of the first true in each row of (S, N); N where none is true."""
    return torch.where(is_so.any(dim=1), is_so.int().argmax(dim=1), is_so.shape[1])
