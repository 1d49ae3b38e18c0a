"""Shapes of the garden in the sample clips, as plain vertices and faces, and the transforms that place them.

Only numpy: `sample_garden.py` turns them into Blender meshes. A shape is (N, 3) vertices and a list of faces; its z is
up. Transforms are (4, 4) and act on columns.
"""

from __future__ import annotations

from math import cos, pi, sin, tau

import numpy as np

Shape = tuple[np.ndarray, list[tuple[int, ...]]]


def rotation(axis: str, angle: float) -> np.ndarray:
    """(4, 4) right-handed rotation about `axis` ("x", "y" or "z") by `angle` radians."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(4)
    matrix[[i, j], [i, j]] = cos(angle)
    matrix[i, j], matrix[j, i] = -sin(angle), sin(angle)
    return matrix


def translation(x: float, y: float, z: float) -> np.ndarray:
    """(4, 4) translation."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def moved(shape: Shape, matrix: np.ndarray) -> Shape:
    """The shape under a transform."""
    return shape[0] @ matrix[:3, :3].T + matrix[:3, 3], shape[1]


def joined(shapes: list[Shape]) -> Shape:
    """Several shapes as one."""
    faces, start = [], 0
    for vertices, part in shapes:
        faces += [tuple(i + start for i in face) for face in part]
        start += len(vertices)
    return np.concatenate([vertices for vertices, _ in shapes]), faces


def sheet(points: np.ndarray, closed: bool = False) -> Shape:
    """A grid of points (rows, columns, 3) as quads; `closed` joins the last column to the first."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    if closed:
        index = np.concatenate([index, index[:, :1]], 1)
    quads = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], -1).reshape(-1, 4)
    return points.reshape(-1, 3), [tuple(quad) for quad in quads.tolist()]


def lathe(profile: list[tuple[float, float]], sides: int = 32) -> Shape:
    """A profile of (radius, height) turned about z."""
    angle = np.arange(sides) * tau / sides
    return sheet(np.array([[(r * cos(a), r * sin(a), z) for a in angle] for r, z in profile]), closed=True)


def ball(radius: float, rings: int = 12, sides: int = 20) -> Shape:
    """A sphere about the origin."""
    angles = np.linspace(1e-3, pi - 1e-3, rings)
    return lathe([(radius * sin(a), radius * cos(a)) for a in angles], sides)


def box(width: float, length: float, height: float) -> Shape:
    """A box that stands on z = 0, centred in x and y."""
    around = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [(x * width / 2, y * length / 2, z * height) for z in (0, 1) for x, y in around]
    faces = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    return np.array(corners), faces


def tube(path: np.ndarray, radius: float, sides: int = 10) -> Shape:
    """A tube of one radius along a path (N, 3) that is nowhere parallel to y."""
    along = np.gradient(path, axis=0)
    side = np.cross(along, (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along / np.linalg.norm(along, axis=1, keepdims=True))
    angle = np.arange(sides)[:, None] * tau / sides
    return sheet(path[:, None] + radius * (np.cos(angle) * side[:, None] + np.sin(angle) * up[:, None]), closed=True)


PETAL_ROWS, PETAL_COLUMNS = 14, 9


def petals(count: int, length: float, width: float, lift: float, curl: float, turn: float) -> Shape:
    """A whorl of petals about +z: rising by `lift` radians at the root, bent outwards by `curl` towards the tip."""
    u, v = np.linspace(0, 1, PETAL_ROWS), np.linspace(-1, 1, PETAL_COLUMNS)
    slope = lift - curl * u**1.5
    step = length / (PETAL_ROWS - 1)
    reach = 0.05 + np.concatenate([[0], np.cumsum(np.cos(slope))[:-1]]) * step
    rise = np.concatenate([[0], np.cumsum(np.sin(slope))[:-1]]) * step
    half = width * (np.sin(pi * np.clip(u, 0.06, 0.985) ** 0.85)) ** 0.7
    whorl = []
    for k in range(count):
        cup = 0.28 * half[:, None] * v**2 + 0.012 * (k % 2)  # every other petal lies a little higher
        x = reach[:, None] - np.sin(slope)[:, None] * cup
        z = rise[:, None] + np.cos(slope)[:, None] * cup
        petal = sheet(np.stack([x, half[:, None] * v, z], -1))
        whorl.append(moved(petal, rotation("z", turn + tau * k / count)))
    return joined(whorl)


def petal_streaks(count: int) -> np.ndarray:
    """(N, 3) for the vertices of `count` petals: x runs from 0 at the root to 1 at the tip, in streaks; y, z are 0."""
    u, v = np.meshgrid(np.linspace(0, 1, PETAL_ROWS), np.linspace(-1, 1, PETAL_COLUMNS), indexing="ij")
    streak = np.clip(u + 0.13 * np.cos(v * 3.5 * pi) * np.sin(pi * u), 0, 1).ravel()
    return np.tile(np.stack([streak, 0 * streak, 0 * streak], -1), (count, 1)).astype(np.float32)


def seed_head(radius: float, count: int) -> Shape:
    """A low dome of `count` grains, in the spiral in which sunflowers set theirs."""
    golden = pi * (3 - 5**0.5)
    dome = lathe([(radius * sin(a), 0.55 * radius * cos(a) ** 2 + 0.01) for a in np.linspace(0.01, pi / 2, 8)])
    grains = [dome]
    for i in range(count):
        out = (i / count) ** 0.5
        at = translation(
            radius * out * cos(i * golden), radius * out * sin(i * golden), 0.55 * radius * (1 - out**2) + 0.02
        )
        grains.append(moved(ball(radius * 0.11, 5, 8), at))
    return joined(grains)


def stem_path(root: tuple[float, float, float], height: float, lean: tuple[float, float]) -> np.ndarray:
    """(24, 3) a stem from `root`, upright at the root and leaning by (x, y) at its tip."""
    u = np.linspace(0, 1, 24)
    return np.array(root) + np.stack([lean[0] * u**2, lean[1] * u**2, height * (u - 0.06 * u**3)], -1)


def butterfly_wing() -> tuple[Shape, Shape]:
    """A right wing in the x, y plane, its root at the origin and y towards the head: the field and its dark border."""
    a = np.linspace(-1.35, 1.45, 40)
    fore, hind = np.maximum(0, np.cos(1.9 * (a - 0.75))), np.maximum(0, np.cos(2.4 * (a + 0.75)))
    outline = (0.085 + 0.13 * fore + 0.07 * hind)[:, None] * np.stack([np.cos(a), np.sin(a), 0 * a], -1)
    field, border = (np.linspace(*span)[:, None, None] for span in ((0.02, 1, 8), (1, 1.13, 3)))
    return sheet(outline * field), sheet(outline * border)


def pinwheel_blade() -> Shape:
    """One of six blades, in the x, z plane, bulging towards -y as folded paper does."""
    out, across = np.meshgrid(np.linspace(0, 0.34, 8), np.linspace(0, 0.95, 8), indexing="ij")
    bulge = -0.02 - 0.7 * out * (0.34 - out) * across
    return sheet(np.stack([out * np.cos(across), bulge, out * np.sin(across)], -1))


def grass_blades(count: int, random: np.random.Generator) -> Shape:
    """Thin blades on the flat ground about the pot, leaving its own place free."""
    blades = []
    for _ in range(count):
        x, y = random.uniform(-2.2, 2.2), random.uniform(2.6, 5.1)
        if abs(x) < 0.45 and abs(y - 3.15) < 0.45:
            continue
        u, tall, lean = np.linspace(0, 1, 6), random.uniform(0.12, 0.3), random.uniform(-0.12, 0.12)
        half = (0.012 * (1 - u) + 0.001)[:, None] * (1.0, 0.0, 0.0)
        line = np.stack([x + lean * u**2, 0 * u + y, tall * u], -1)
        blades.append(sheet(np.stack([line - half, line + half], 1)))
    return joined(blades)


def hill_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the ground: flat in front, two ridges behind."""
    near = 0.75 * np.exp(-(((y - 8.4) / 1.0) ** 2)) * (1 + 0.6 * np.sin(0.8 * x + 0.6))
    far = 1.75 * np.exp(-(((y - 10.9) / 1.1) ** 2)) * (1 + 0.45 * np.sin(0.55 * x + 2.4) + 0.15 * np.sin(1.7 * x))
    return near + far


def ground() -> Shape:
    """The ground with its hills, from behind the source camera to just behind the sky, finer in the camera's view."""
    x = np.concatenate([np.linspace(-60, -9, 40)[:-1], np.linspace(-9, 9, 150), np.linspace(9, 60, 40)[1:]])
    y = np.concatenate([np.linspace(-6, 6, 30)[:-1], np.linspace(6, 12.6, 90)])
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return sheet(np.stack([xx, yy, hill_height(xx, yy)], -1))
