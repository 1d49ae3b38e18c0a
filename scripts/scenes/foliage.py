"""Foliage: a shrub of hundreds of leaves with gaps between them, a near twig, a hedge and a wall; all leaves sway."""

from __future__ import annotations

from math import cos, pi, sin, tau

import numpy as np

from sample_garden import add, reshape
from sample_shapes import Shape, joined, moved, rotation, sheet, translation, tube

from .filming import FilmedScene, Pose
from .painting import add_ground, add_sky, painted, slab

SWAY = 0.035  # units by which a leaf one unit above its root moves


def leaf(length: float, width: float) -> Shape:
    """A leaf along +x from the origin, folded along its middle rib and bent down towards its tip."""
    along, across = np.linspace(0, 1, 5), np.array([-1.0, 0.0, 1.0])
    half = width / 2 * np.sin(pi * np.clip(along, 0.04, 0.98) ** 0.8)
    x = length * along[:, None] + 0 * across
    y = half[:, None] * across
    z = 0.35 * np.abs(y) - 0.3 * length * along[:, None] ** 2
    return sheet(np.stack([x, y, z], -1))


def curve(root: np.ndarray, tip: np.ndarray, sag: float, steps: int = 8) -> np.ndarray:
    """(N, 3) a twig from root to tip, hanging through by ``sag`` in its middle."""
    u = np.linspace(0, 1, steps)[:, None]
    return root * (1 - u) + tip * u - np.array([0, 0, sag]) * np.sin(pi * u)


def leafy_twig(path: np.ndarray, count: int, size: float, random: np.random.Generator) -> list[Shape]:
    """Leaves along a path, each turned its own way."""
    leaves = []
    for u in np.linspace(0.25, 1, count):
        at = path[min(int(u * (len(path) - 1)), len(path) - 1)] + random.normal(0, 0.02, 3)
        turn = rotation("z", random.uniform(0, tau)) @ rotation("y", random.uniform(-0.5, 0.9))
        grown = leaf(size * random.uniform(0.7, 1.25), size * random.uniform(0.42, 0.6))
        leaves.append(moved(grown, translation(*at) @ turn @ rotation("x", random.uniform(-0.9, 0.9))))
    return leaves


def shrub(
    root: np.ndarray, height: float, reach: float, twigs: int, random: np.random.Generator
) -> tuple[list[Shape], list[Shape]]:
    """(wood, leaves): a trunk, branches from it, and leafy twigs from those."""
    wood, leaves = [tube(curve(root, root + np.array([0.05, 0.02, 0.75 * height]), 0.0), 0.035)], []
    for branch in range(9):
        heading, rise = tau * branch * 0.382, 0.35 + 0.065 * branch
        start = root + np.array([0.02, 0.01, height * (0.25 + 0.055 * branch)])
        out = reach * (1.0 - 0.55 * abs(rise - 0.55))
        tip = root + np.array([cos(heading) * out, sin(heading) * out, height * (0.5 + 0.5 * (rise - 0.35) / 0.52)])
        path = curve(start, tip, -0.06)
        wood.append(tube(path, 0.014, 6))
        for _ in range(twigs):
            begin = path[random.integers(2, len(path))]
            twig = curve(begin, begin + random.uniform(-1, 1, 3) * (0.42, 0.34, 0.3), 0.03)
            wood.append(tube(twig, 0.005, 5))
            leaves += leafy_twig(twig, 11, 0.14, random)
    return wood, leaves


def build() -> Pose:
    """The scene in the current, empty file."""
    random = np.random.default_rng(7)
    add_sky()
    add_ground(painted("ground", "5a4a34 7d6a49 8f8a52", scale=(2.2, 2.2, 2.2)))
    add(slab((-7, 6.2, 0), (14, 0.3, 2.3)), painted("wall", "8f4a38 b2664c cfa387", scale=(2.5, 2.5, 9)), smooth=False)
    bark = painted("bark", "4a3524 6e5138", scale=(9, 9, 3))
    greens = [
        painted(f"leaf {k}", colors, scale=(11, 11, 11))
        for k, colors in enumerate(("2d6a2c 5c9a3a a5c95c", "3f7a2a 79ad40 cfd873", "24562f 4d8a4a 8fc07a"))
    ]
    flowers = painted("flower", "e05a7a f4a6b4 ffe3d8", scale=(14, 14, 14))
    wood, leaves = shrub(np.array([0.0, 3.0, 0.0]), 2.3, 1.2, 11, random)
    behind, low = shrub(np.array([-2.1, 4.6, 0.0]), 1.7, 1.0, 6, random)
    third, right = shrub(np.array([2.3, 4.9, 0.0]), 2.0, 1.0, 6, random)
    near = curve(np.array([-1.5, 1.65, 2.0]), np.array([-0.3, 1.8, 1.78]), 0.05)
    overhang = leafy_twig(near, 16, 0.13, random)
    stems = add(joined([*wood, *behind, *third, tube(near, 0.008, 6)]), bark)
    everything = [*leaves, *low, *right, *overhang]
    swaying = [(stems, joined([*wood, *behind, *third, tube(near, 0.008, 6)]))]
    for k, material in enumerate((*greens, flowers)):
        # One leaf in twelve is a flower.
        part = joined([one for i, one in enumerate(everything) if (3 if i % 12 == 0 else i % 3) == k])
        swaying.append((add(part, material, smooth=False), part))

    def pose(time: float) -> None:
        for thing, shape in swaying:
            reshape(thing, swayed(shape, time))

    return pose


def swayed(shape: Shape, time: float) -> Shape:
    """A shape in the wind: higher parts move more, and neighbours alike."""
    points, faces = shape
    phase = tau * 0.6 * time + 1.3 * points[:, 0] + 0.8 * points[:, 1]
    lean = SWAY * points[:, 2]
    return points + np.stack([lean * np.sin(phase), 0.6 * lean * np.cos(phase), 0 * lean], 1), faces


SCENE = FilmedScene(
    "foliage",
    build,
    eye=(0.0, 0.0, 1.35),
    target=(0.0, 3.0, 1.3),
    moves=(
        *(f"orbit {degrees}" for degrees in (30, -60, 90, -30, 60, -90)),
        *("dolly_in 0.3", "crane 0.5", "dolly_out 0.4", "crane 0.3", "dolly_in 0.15", "zoom_out 1.5"),
    ),
)
__all__ = ["SCENE"]
