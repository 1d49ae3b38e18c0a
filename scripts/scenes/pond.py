"""A pond: water that mirrors trees and sky, reeds, a jetty, and a boat that drifts."""

from __future__ import annotations

from math import sin, tau

import numpy as np

from sample_garden import add, place
from sample_shapes import Shape, ball, joined, moved, rotation, sheet, translation, tube

from .filming import FilmedScene, Pose
from .painting import add_sky, mirror, painted, slab

MIDDLE, RADII = np.array([0.3, 4.2]), np.array([3.6, 2.6])  # of the pond
WATER = -0.1  # its level


def bank_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the ground: uneven, and under water in the pond."""
    from_middle = np.hypot((x - MIDDLE[0]) / RADII[0], (y - MIDDLE[1]) / RADII[1])
    inside = 1 / (1 + np.exp((from_middle - 1) * 14))
    return 0.06 * np.sin(1.7 * x + 0.5 * y) + 0.05 * np.sin(2.3 * y) + 0.05 - 0.6 * inside


def banks() -> Shape:
    """The ground out to the sky, finer around the pond."""
    steps = np.concatenate([np.linspace(-31, -6, 30)[:-1], np.linspace(-6, 6, 90), np.linspace(6, 31, 30)[1:]])
    x, y = np.meshgrid(steps, steps + MIDDLE[1])
    return sheet(np.stack([x, y, bank_height(x, y)], -1))


def reeds(count: int, random: np.random.Generator) -> Shape:
    """Upright blades in tufts along the water's edge."""
    blades = []
    for tuft in range(9):
        # Away from the near edge, where they would stand before the lens.
        turn = tau * (0.02 + 0.5 * tuft / 8) + random.uniform(-0.1, 0.1)
        at = MIDDLE + RADII * 0.93 * (np.cos(turn), np.sin(turn))
        for _ in range(count):
            root, tall = at + random.normal(0, 0.16, 2), random.uniform(0.5, 1.15)
            lean, turned = random.normal(0, 0.13, 2), random.uniform(0, tau)
            u = np.linspace(0, 1, 5)
            line = np.stack([root[0] + lean[0] * u**2, root[1] + lean[1] * u**2, WATER - 0.1 + tall * u], -1)
            half = (0.014 * (1 - u) + 0.003)[:, None] * (np.cos(turned), np.sin(turned), 0.0)
            blades.append(sheet(np.stack([line - half, line + half], 1)))
    return joined(blades)


def jetty() -> Shape:
    """Planks on posts, from the left bank into the pond."""
    planks = [slab((-3.6 + 0.2 * k, 3.1, 0.12), (0.17, 0.8, 0.04)) for k in range(14)]
    posts = [
        tube(np.array([[x, y, z] for z in (-0.6, 0.2, 0.5)]), 0.045) for x in (-3.0, -2.0, -1.0) for y in (3.08, 3.92)
    ]
    rails = [tube(np.array([[x, 3.92, 0.46] for x in (-3.0, -2.0, -1.0)]), 0.02, 6)]
    return joined([*planks, *posts, *rails])


def boat() -> tuple[Shape, Shape]:
    """(hull, benches) of a rowing boat along x, its waterline at z = 0."""
    along, around = np.linspace(-1, 1, 18), np.linspace(-1.4, 1.4, 9)
    width, keel = 0.36 * (1 - along**4), -0.16 + 0.2 * along**4
    shell = [
        sheet(
            np.stack(
                [
                    0.95 * along[:, None] + 0 * around,
                    scale * width[:, None] * np.sin(around),
                    0.24 + 0.1 * along[:, None] ** 2 + (keel[:, None] - 0.24) * np.cos(around) * scale,
                ],
                -1,
            )
        )
        for scale in (1.0, 0.93)
    ]
    return joined(shell), joined([slab((x, -0.3, 0.12), (0.2, 0.6, 0.03)) for x in (-0.45, 0.25)])


def build() -> Pose:
    """The scene in the current, empty file."""
    random = np.random.default_rng(11)
    add_sky("4f8fca 9cc4e4 e9eef0 f6e7d0")
    add(banks(), painted("bank", "4a6b2e 6a8a3c 90a357 a39a6a", scale=(2.5, 2.5, 2.5)))
    turn, reach = np.linspace(0, tau, 49), np.linspace(0.001, 1.15, 4)
    rim = np.stack([np.cos(turn), np.sin(turn)], -1)[None] * RADII * reach[:, None, None] + MIDDLE
    add(sheet(np.concatenate([rim, np.full((*rim.shape[:2], 1), WATER)], -1)), mirror("water", 0.8))
    add(reeds(20, random), painted("reed", "4d7a34 7ea04a b5b868", scale=(5, 5, 2)), smooth=False)
    add(jetty(), painted("planks", "6b563e 8d7455 ab9474", "bands", (9, 2, 9)), smooth=False)
    bark, crown = (
        painted("bark", "4f3b2a 73573c", scale=(9, 9, 2)),
        painted("crown", "2f6436 4d8a44 86b35a c6b04e", scale=(9, 9, 9)),
    )
    trunks, crowns = [], []
    for x, y, tall in (
        (-4.2, 11.2, 1.7),
        (-1.6, 12.4, 2.1),
        (1.2, 10.4, 1.5),
        (3.6, 11.0, 1.8),
        (6.2, 6.2, 2.7),
        (-6.2, 4.6, 2.9),
        (6.6, 1.4, 2.5),
        (-6.4, 0.6, 2.6),
    ):
        trunks.append(tube(np.array([[x, y, h] for h in (-0.1, tall / 2, tall)]), 0.12))
        for _ in range(7):
            shift = random.normal(0, 1, 3) * (0.5, 0.5, 0.35)
            crowns.append(
                moved(
                    ball(random.uniform(0.4, 0.75), 10, 14),
                    translation(x + shift[0], y + shift[1], tall + 0.2 + shift[2]),
                )
            )
    add(joined(trunks), bark)
    add(joined(crowns), crown)
    stones = [
        moved(ball(1, 8, 12), translation(x, y, 0.02) @ rotation("z", x) @ np.diag([size, 0.7 * size, 0.5 * size, 1]))
        for x, y, size in ((-1.1, 1.75, 0.2), (-0.65, 1.6, 0.14), (1.0, 1.65, 0.24), (2.2, 1.9, 0.18), (3.4, 2.9, 0.3))
    ]
    add(joined(stones), painted("stone", "7d7a74 9d9a92 bdb8ac", scale=(6, 6, 6)))
    hull, benches = boat()
    wood = painted("hull", "7a2f2a a34a3a c87858", "bands", (1, 1, 16))
    parts = [add(hull, wood), add(benches, painted("bench", "b08a58 cdaa78"), smooth=False)]

    def pose(time: float) -> None:
        drift = translation(0.1 + 0.5 * time, 4.1 - 0.15 * time, WATER + 0.02 * sin(tau * time)) @ rotation(
            "z", 0.35 + 0.3 * time
        )
        for part in parts:
            place(part, drift)

    return pose


SCENE = FilmedScene("pond", build, eye=(0.0, -0.4, 1.5), target=(0.2, 4.0, 0.55))
