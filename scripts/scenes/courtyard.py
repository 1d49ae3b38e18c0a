"""A courtyard that a camera moves through: columns, a fountain, jars, benches. Nothing in it moves."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from sample_garden import add
from sample_shapes import Shape, ball, joined, lathe, moved, rotation, translation

from .filming import FilmedScene, Pose
from .painting import add_ground, add_sky, painted, slab

HALF = 5.2  # half the side of the square that the columns stand on


def column() -> Shape:
    """A column with base and capital, 3 high, on the origin."""
    profile = [(0.2, 0.12), (0.22, 0.18), (0.2, 0.24), (0.16, 0.3), (0.165, 1.4), (0.14, 2.7), (0.2, 2.8), (0.22, 2.86)]
    ends = [slab((-0.25, -0.25, 0), (0.5, 0.5, 0.12)), slab((-0.26, -0.26, 2.86), (0.52, 0.52, 0.14))]
    return joined([lathe(profile, 20), *ends])


def arcade() -> Shape:
    """Columns on all four sides of the square, under a beam."""
    stand = []
    for turn in range(4):
        side = rotation("z", turn * pi / 2)
        stand += [moved(column(), side @ translation(x, HALF, 0)) for x in np.linspace(-HALF, HALF, 6)[:-1]]
        stand.append(moved(slab((-HALF, HALF - 0.25, 3.0), (2 * HALF, 0.5, 0.35)), side))
    return joined(stand)


def fountain() -> Shape:
    """Two bowls on a foot, with a ball on top."""
    low = [(0.001, 0.1), (0.95, 0.1), (1.0, 0.0), (1.1, 0.0), (1.15, 0.42), (1.05, 0.45), (0.98, 0.2), (0.15, 0.2)]
    foot = [(0.2, 0.2), (0.1, 0.35), (0.09, 0.9), (0.14, 1.0)]
    high = [(0.14, 1.0), (0.5, 1.1), (0.62, 1.22), (0.58, 1.24), (0.1, 1.1), (0.06, 1.5), (0.001, 1.52)]
    return joined([lathe(low, 32), lathe(foot, 20), lathe(high, 28), moved(ball(0.11), translation(0, 0, 1.6))])


def jar() -> Shape:
    """A jar, 0.8 high."""
    return lathe(
        [(0.001, 0), (0.14, 0), (0.27, 0.3), (0.25, 0.5), (0.12, 0.66), (0.12, 0.7), (0.17, 0.78), (0.15, 0.8)], 24
    )


def build() -> Pose:
    """The scene in the current, empty file."""
    random = np.random.default_rng(5)
    add_sky("4a88c8 93bde2 e4ecf0")
    add_ground(painted("floor", "9a7a5c b89a78 d3bc9c", "bands", (1.4, 1.4, 1), Distortion=6.0))
    add(arcade(), painted("marble", "b5ad9c d2cbbb ebe6da", "bands", (1, 1, 5), Distortion=4.0))
    ochre = painted("wall", "a8723c c48f56 dcb07c", scale=(1.6, 1.6, 1.6))
    wooden, far = painted("door", "3f5a4a 587a64", "bands", (6, 6, 1)), HALF + 2.4
    for turn in range(4):
        side = rotation("z", turn * pi / 2)
        add(moved(slab((-far, far, 0), (2 * far, 0.3, 4.2)), side), ochre, smooth=False)
        doors = [slab((x, far - 0.08, 0), (1.1, 0.08, 2.2)) for x in (-4.2, -0.55, 3.1)]
        add(moved(joined(doors), side), wooden, smooth=False)
    add(fountain(), painted("stone", "8a8f94 a9adb0 c9cccc", scale=(6, 6, 6)))
    clay = painted("clay", "94482c b7653f d48d60", "bands", (1, 1, 12), Distortion=1.0)
    places = [(-1.9, -1.5), (-2.3, -1.1), (1.7, -1.2), (2.4, 0.9), (-1.2, 2.4), (3.4, 2.6), (-3.3, 1.7)]
    jars = [
        moved(jar(), translation(x, y, 0) @ np.diag([s, s, s, 1]))
        for (x, y), s in zip(places, random.uniform(0.7, 1.3, 7), strict=True)
    ]
    add(joined(jars), clay)
    benches = []
    for angle in (0.7, 2.4, 3.9, 5.6):
        parts = joined(
            [slab((-0.7, -0.2, 0.4), (1.4, 0.4, 0.07)), *(slab((x, -0.16, 0), (0.1, 0.32, 0.4)) for x in (-0.6, 0.5))]
        )
        benches.append(moved(parts, translation(2.3 * cos(angle), 2.3 * sin(angle), 0) @ rotation("z", angle + pi / 2)))
    add(joined(benches), painted("bench", "6f5236 91704c", "bands", (2, 9, 9)), smooth=False)
    boxes, hedge = painted("box", "7c5a3c 9b7650"), painted("hedge", "2d5f2e 4f8a3e 8ab35c", scale=(9, 9, 9))
    tubs, balls = [], []
    for x, y in ((4.3, 4.2), (-4.2, 4.4), (4.4, -4.3)):  # outside the circle of the camera's moves
        tubs.append(slab((x - 0.28, y - 0.28, 0), (0.56, 0.56, 0.5)))
        balls += [moved(ball(0.42), translation(x, y, 0.95)), moved(ball(0.26), translation(x, y, 1.5))]
    add(joined(tubs), boxes, smooth=False)
    add(joined(balls), hedge)
    return lambda time: None


SCENE = FilmedScene(
    "courtyard",
    build,
    eye=(-1.1, -4.4, 1.55),
    target=(0.0, 0.0, 1.0),
    travel=(2.2, 0.5, 0.25),
    frames=6,
    field_of_view=60,
)
