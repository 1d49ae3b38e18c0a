"""A side street: facades, lamp posts, wires, a parked car, a kiosk, and a walker who crosses."""

from __future__ import annotations

from math import pi, sin, tau

import numpy as np

from sample_garden import add, place
from sample_shapes import Shape, ball, joined, lathe, moved, rotation, translation, tube

from .filming import FilmedScene, Pose
from .painting import add_ground, add_sky, painted, slab

STRIDE = 1.5  # walking cycles in the clip


def facade(x: float, outwards: int, first: float, last: float, height: float) -> tuple[Shape, Shape, Shape]:
    """(wall, glass, frames) of a house along y whose front is at ``x`` and faces ``outwards`` along x."""
    depth = 0.4
    walls = [slab((min(x, x - outwards * 4), first, 0), (4, last - first, height))]
    glass, frames = [], []
    for y in np.arange(first + 0.9, last - 1.2, 2.1):
        for z in np.arange(1.0, height - 1.4, 2.4):
            front = x if outwards > 0 else x - 0.03
            glass.append(slab((front, y, z), (0.03, 1.1, 1.35)))
            edge = x if outwards > 0 else x - 0.1
            for corner, size in (
                ((edge, y - 0.08, z - 0.1), (0.1, 1.26, 0.1)),
                ((edge, y - 0.08, z + 1.35), (0.1, 1.26, 0.08)),
                ((edge, y - 0.08, z), (0.1, 0.08, 1.35)),
                ((edge, y + 1.1, z), (0.1, 0.08, 1.35)),
                ((edge, y + 0.52, z), (0.06, 0.05, 1.35)),
            ):
                frames.append(slab(corner, size))
    cornice = slab((x - 0.15 if outwards > 0 else x - depth + 0.15, first, height), (depth, last - first, 0.25))
    return joined([*walls, cornice]), joined(glass), joined(frames)


def lamp_post(x: float, y: float, towards: int) -> Shape:
    """A post with an arm over the street and a lamp on it."""
    arm = np.array([[x, y, 3.2], [x + 0.3 * towards, y, 3.45], [x + 0.8 * towards, y, 3.5]])
    foot = moved(lathe([(0.11, 0), (0.11, 0.25), (0.05, 0.3)], 12), translation(x, y, 0))
    head = slab((x + 0.8 * towards - 0.18, y - 0.09, 3.42), (0.36, 0.18, 0.09))
    return joined([foot, tube(np.array([[x, y, h] for h in (0, 1.6, 3.2)]), 0.045), tube(arm, 0.03), head])


def wire(start: tuple[float, float, float], stop: tuple[float, float, float], sag: float) -> Shape:
    """A wire that hangs between two points."""
    u = np.linspace(0, 1, 16)[:, None]
    return tube(np.array(start) * (1 - u) + np.array(stop) * u - [0, 0, sag] * np.sin(pi * u), 0.012, 6)


def car() -> tuple[Shape, Shape, Shape]:
    """(body, glass, wheels) of a parked car along y, its middle at the origin."""
    body = [slab((-0.8, -1.9, 0.3), (1.6, 3.8, 0.5)), slab((-0.7, -1.1, 1.28), (1.4, 1.9, 0.06))]
    body += [slab((x, y, 0.8), (0.07, 0.07, 0.5)) for x in (-0.7, 0.63) for y in (-1.1, -0.1, 0.73)]
    glass = slab((-0.64, -1.03, 0.8), (1.28, 1.76, 0.47))
    tyre = moved(
        lathe([(0.001, -0.1), (0.3, -0.1), (0.33, -0.06), (0.33, 0.06), (0.3, 0.1), (0.001, 0.1)], 20),
        rotation("y", pi / 2),
    )
    wheels = [moved(tyre, translation(x, y, 0.33)) for x in (-0.78, 0.78) for y in (-1.2, 1.2)]
    return joined(body), glass, joined(wheels)


class Walker:
    """A walking figure: trunk and head, two arms and two legs with knees, swinging from their joints."""

    def __init__(self, coat, trousers, skin, start: tuple[float, float], stop: tuple[float, float]) -> None:
        self._start, self._stop = np.array(start), np.array(stop)
        trunk = lathe(
            [(0.001, 0.82), (0.15, 0.84), (0.17, 1.0), (0.2, 1.32), (0.17, 1.42), (0.06, 1.47), (0.001, 1.48)], 16
        )
        head = joined([moved(ball(0.115, 10, 14), translation(0, 0, 1.62)), lathe([(0.05, 1.44), (0.05, 1.54)], 10)])
        arm = lathe([(0.001, 0.04), (0.055, 0.02), (0.045, -0.3), (0.035, -0.58), (0.001, -0.6)], 10)
        thigh = lathe([(0.001, 0.02), (0.085, 0), (0.06, -0.42), (0.001, -0.44)], 10)
        shin = joined(
            [
                lathe([(0.001, 0.02), (0.06, 0), (0.045, -0.4), (0.001, -0.41)], 10),
                slab((-0.06, -0.05, -0.42), (0.24, 0.1, 0.08)),
            ]
        )
        self._fixed = [add(trunk, coat), add(head, skin)]
        self._arms = [add(arm, coat) for _ in range(2)]
        self._thighs, self._shins = ([add(shape, trousers) for _ in range(2)] for shape in (thigh, shin))

    def pose(self, time: float) -> None:
        """Take the place and the step of a time in [0, 1]."""
        at, phase = self._start + time * (self._stop - self._start), tau * STRIDE * time
        ahead = np.arctan2(*(self._stop - self._start)[::-1])
        whole = translation(at[0], at[1], 0.02 * abs(sin(phase))) @ rotation("z", ahead)
        for part in self._fixed:
            place(part, whole)
        for side, (arm, thigh, shin) in enumerate(zip(self._arms, self._thighs, self._shins, strict=True)):
            swing = 0.5 * sin(phase + pi * side)
            y = 0.1 if side else -0.1
            place(arm, whole @ translation(0, 2.3 * y, 1.38) @ rotation("y", 0.8 * swing))
            hip = whole @ translation(0, y, 0.86) @ rotation("y", -swing)
            place(thigh, hip)
            place(shin, hip @ translation(0, 0, -0.42) @ rotation("y", max(0.0, 0.9 * sin(phase + pi * side - 1.0))))


def build() -> Pose:
    """The scene in the current, empty file."""
    add_sky("6fa0cf b9d3e4 eef0ea")
    add_ground(painted("asphalt", "53555a 66686c 7b7c7e", scale=(5, 5, 5)))
    paving = painted("paving", "8f8a80 aaa59a c3beb2", "bands", (2.5, 2.5, 1))
    glass, frame = painted("glass", "3c5568 6d8ea3 a9c4cf", scale=(0.9, 0.9, 0.9)), painted("frame", "ded9cc f2efe6")
    for x, outwards, first, last, height, colors in (
        (-8.5, 1, -8, 4, 7.0, "a65b3e c07a55 d69a70"),
        (-8.0, 1, 4.2, 17, 5.6, "c9b88f dccda6 ebe0c2"),
        (8.0, -1, -8, 7, 6.2, "7f8fa0 9baab8 b8c4ce"),
        (8.6, -1, 7.2, 17, 7.6, "a9a48f c2bda8 d8d3c1"),
    ):
        wall, windows, frames = facade(x, outwards, first, last, height)
        add(wall, painted("plaster", colors, scale=(1.4, 1.4, 1.4)), smooth=False)
        add(windows, glass, smooth=False)
        add(frames, frame, smooth=False)
        inner = x + (0 if outwards > 0 else -3.6)
        add(slab((inner, first, 0), (3.6, last - first, 0.12)), paving, smooth=False)
    add(slab((-9, 17.5, 0), (18, 3, 6.5)), painted("brick", "8a4a3a a5604a c08468", scale=(2, 2, 9)), smooth=False)
    iron = painted("iron", "2c3336 4a5356")
    posts = [(-3.2, 2.2, 1), (-3.4, 6.6, 1), (-3.6, 11.5, 1), (3.3, 3.6, -1), (3.5, 8.8, -1)]
    add(joined([lamp_post(*post) for post in posts]), iron)
    lines = [wire((-3.2, 2.2, 3.2), (3.3, 3.6, 3.2), 0.25), wire((-3.4, 6.6, 3.3), (3.5, 8.8, 3.3), 0.3)]
    lines += [wire((-3.2, 2.2, 3.1), (-3.4, 6.6, 3.1), 0.15), wire((-3.4, 6.6, 3.1), (-3.6, 11.5, 3.1), 0.15)]
    add(joined(lines), iron)
    body, panes, wheels = (moved(part, translation(2.5, 6.6, 0)) for part in car())
    add(body, painted("car", "8d2230 b23a44 d06068", scale=(1, 1, 1)), smooth=False)
    add(panes, glass, smooth=False)
    add(wheels, iron)
    kiosk = [slab((-2.6, 8.6, 0), (1.5, 1.3, 2.1)), slab((-2.8, 8.4, 2.1), (1.9, 1.7, 0.12))]
    add(joined(kiosk), painted("kiosk", "2f6f5e 4a9079 77b59c", "bands", (6, 6, 1)), smooth=False)
    bin_ = lathe([(0.001, 0), (0.2, 0), (0.24, 0.7), (0.27, 0.72), (0.27, 0.8), (0.001, 0.86)], 20)
    add(moved(bin_, translation(1.3, 2.9, 0)), painted("bin", "39506a 55708c"))
    walker = Walker(
        painted("coat", "2b3f78 3f5a9c", scale=(12, 12, 12)),
        painted("trousers", "3a3430 57504a"),
        painted("skin", "b98263 d8a584"),
        (-1.5, 4.6),
        (0.9, 4.9),
    )
    return walker.pose


SCENE = FilmedScene("side_street", build, eye=(0.0, 0.0, 1.6), target=(0.0, 5.0, 1.3))
