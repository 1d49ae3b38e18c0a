"""A room: furniture near the camera, thin chair legs, a shelf of books, a plant, and a lamp that swings."""

from __future__ import annotations

from math import sin, tau

import numpy as np

from sample_garden import add, place
from sample_shapes import Shape, ball, joined, lathe, moved, rotation, translation, tube

from .filming import FilmedScene, Pose
from .foliage import curve, leafy_twig
from .painting import painted, slab

WALLS = (-3.4, 3.4, -4.2, 3.2)  # least and greatest x, then y
CEILING = 3.3


def chair() -> Shape:
    """A chair with thin legs and a slatted back, its seat over the origin, facing -y."""
    parts = [slab((-0.22, -0.22, 0.44), (0.44, 0.44, 0.04))]
    parts += [slab((x, -0.22, 0), (0.035, 0.035, 0.44)) for x in (-0.22, 0.185)]
    parts += [slab((x, 0.185, 0), (0.035, 0.035, 0.98)) for x in (-0.22, 0.185)]
    parts += [slab((-0.22, 0.19, z), (0.44, 0.025, 0.06)) for z in (0.6, 0.75, 0.9)]
    return joined(parts)


def table() -> Shape:
    """A table for four over the origin."""
    legs = [slab((x, y, 0), (0.06, 0.06, 0.72)) for x in (-0.75, 0.69) for y in (-0.4, 0.34)]
    return joined([slab((-0.8, -0.45, 0.72), (1.6, 0.9, 0.04)), *legs])


def shelf() -> Shape:
    """An open shelf of four boards, 1.4 wide, its back against y = 0."""
    boards = [slab((-0.7, -0.3, z), (1.4, 0.3, 0.03)) for z in (0.1, 0.6, 1.1, 1.6, 2.1)]
    return joined([*boards, *(slab((x, -0.3, 0), (0.03, 0.3, 2.13)) for x in (-0.73, 0.7))])


def books(random: np.random.Generator) -> list[Shape]:
    """Rows of books on the boards of `shelf`, with gaps between some."""
    row = []
    for z in (0.13, 0.63, 1.13, 1.63):
        x = -0.68
        while x < 0.6:
            thick, tall, deep = random.uniform(0.025, 0.06), random.uniform(0.22, 0.4), random.uniform(0.16, 0.25)
            row.append(slab((x, -deep, z), (thick, deep, tall)))
            x += thick + (0.002 if random.random() < 0.85 else random.uniform(0.05, 0.2))
    return row


def add_walls() -> None:
    """Floor, walls with a window onto a bright day, and ceiling."""
    x0, x1, y0, y1 = WALLS
    wide, long = x1 - x0, y1 - y0
    wood = painted("floor", "8a6340 a67c52 c29a6c", "bands", (1, 7, 1), Distortion=2.0)
    add(slab((x0, y0, -0.1), (wide, long, 0.1)), wood, smooth=False)
    plaster = painted("plaster", "d9d2c0 e6e0d0 f1ede2", scale=(1.2, 1.2, 1.2))
    striped = painted("wallpaper", "7f9c8e 95b0a1 b0c6b8", "bands", (5, 1, 0.4))
    add(slab((x0, y0, CEILING), (wide, long, 0.1)), plaster, smooth=False)
    add(slab((x0 - 0.2, y0, 0), (0.2, long, CEILING)), plaster, smooth=False)
    add(slab((x1, y0, 0), (0.2, long, CEILING)), plaster, smooth=False)
    add(slab((x0, y1, 0), (wide, 0.2, CEILING)), striped, smooth=False)
    add(slab((x0, y0 - 0.2, 0), (wide, 0.2, CEILING)), striped, smooth=False)
    view = painted("view", "7fb2d8 b9d8e6 dfe8c8 86a860", scale=(1, 1, 2.2))
    add(slab((-1.9, y1 - 0.03, 1.0), (1.5, 0.03, 1.4)), view, smooth=False)
    bars = [slab((-1.98, y1 - 0.1, 0.92), (1.66, 0.1, 0.08)), slab((-1.98, y1 - 0.1, 2.4), (1.66, 0.1, 0.08))]
    bars += [slab((x, y1 - 0.1, 1.0), (0.07, 0.1, 1.4)) for x in (-1.98, -1.19, -0.39)]
    add(joined(bars), painted("white", "e8e4da f6f3ec"), smooth=False)


def build() -> Pose:
    """The scene in the current, empty file."""
    random = np.random.default_rng(3)
    add_walls()
    oak = painted("oak", "7a4f2c 9c6b3f bd8d5b", "bands", (2, 12, 12), Distortion=3.0)
    dark = painted("dark wood", "4a2d1c 68442b", "bands", (8, 8, 2))
    add(moved(table(), translation(0, 0.6, 0)), oak, smooth=False)
    chairs = [(0.35, -0.45, 2.8), (-0.75, 0.1, 4.0), (0.4, 1.45, 0.1), (1.25, 0.6, -1.5)]
    add(
        joined([moved(chair(), translation(x, y, 0) @ rotation("z", turn)) for x, y, turn in chairs]),
        dark,
        smooth=False,
    )
    at = translation(1.5, WALLS[3], 0)
    add(moved(shelf(), at), oak, smooth=False)
    volumes = books(random)
    for k, colors in enumerate(("9c2f2f c24a44", "2f4f8c 4f74b4", "c79a3a e0bb62", "3f6f4a 649468", "d9d0bd eee8da")):
        add(moved(joined(volumes[k::5]), at), painted("book", colors, scale=(9, 9, 3)), smooth=False)
    china = painted("china", "5f86b0 dfe6ea f4f4f0", scale=(9, 9, 9))
    vase = lathe([(0.001, 0), (0.06, 0), (0.1, 0.1), (0.09, 0.2), (0.035, 0.28), (0.05, 0.33)], 24)
    add(moved(vase, translation(-0.25, 0.55, 0.76)), china)
    add(moved(lathe([(0.001, 0.02), (0.04, 0), (0.13, 0.06), (0.14, 0.08)], 24), translation(0.3, 0.75, 0.76)), china)
    fruit = [
        moved(ball(0.045, 8, 12), translation(0.3 + dx, 0.75 + dy, 0.85))
        for dx, dy in ((0, 0), (0.07, 0.03), (-0.05, 0.05))
    ]
    add(joined(fruit), painted("fruit", "c8452c e58a3a f0c25a"))
    green = painted("leaf", "2d6a2c 5c9a3a a5c95c", scale=(11, 11, 11))
    top = np.array([-0.25, 0.55, 1.08])
    stems = [curve(top, top + random.normal(0, 0.13, 3) + (0, 0, 0.28), 0.0) for _ in range(6)]
    add(
        joined(
            [
                *(tube(stem, 0.005, 5) for stem in stems),
                *(one for stem in stems for one in leafy_twig(stem, 6, 0.1, random)),
            ]
        ),
        green,
        smooth=False,
    )
    sofa = [slab((-3.3, -0.6, 0), (0.85, 1.9, 0.42)), slab((-3.35, -0.6, 0.42), (0.25, 1.9, 0.42))]
    sofa += [slab((-3.3, y, 0.42), (0.85, 0.18, 0.2)) for y in (-0.6, 1.12)]
    add(joined(sofa), painted("sofa", "7c3a4a 9d5566 b97886", scale=(12, 12, 12)), smooth=False)
    add(
        slab((-1.5, -0.7, 0), (3.0, 2.6, 0.012)),
        painted("rug", "8c3b2f c7a45c 3f5370", "bands", (3, 1, 1)),
        smooth=False,
    )
    stand = [moved(lathe([(0.15, 0), (0.15, 0.03), (0.015, 0.05), (0.015, 1.45)], 16), translation(-2.3, 2.4, 0))]
    add(joined(stand), dark)
    add(moved(lathe([(0.24, 1.4), (0.13, 1.75)], 24), translation(-2.3, 2.4, 0)), painted("shade", "e8c88a f6e2b4"))
    cord = add(joined([tube(np.array([[0, 0, -h] for h in (0, 0.4, 0.8, 1.1)]), 0.008, 6)]), dark)
    bell = add(
        moved(lathe([(0.03, 0.14), (0.1, 0.1), (0.2, -0.06), (0.21, -0.08)], 24), translation(0, 0, -1.2)),
        painted("bell", "b8442f d86a4a"),
    )

    def pose(time: float) -> None:
        hung = (
            translation(0.1, 0.6, CEILING)
            @ rotation("x", 0.16 * sin(0.7 * tau * time))
            @ rotation("y", 0.1 * sin(tau * time))
        )
        place(cord, hung)
        place(bell, hung)

    return pose


SCENE = FilmedScene("room", build, eye=(0.15, -2.1, 1.55), target=(0.0, 0.6, 1.0), field_of_view=62)
