"""The garden of the sample clips in bpy: materials, meshes, light, and motion.

Blender's world: x right, y away from the source camera, z up, in units of about a metre. Everything moves by plain
functions of the time t in [0, 1] (`Garden.pose`), so there are no key frames to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, pi, radians, sin, tau
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from sample_shapes import (
    Shape,
    ball,
    box,
    butterfly_wing,
    grass_blades,
    ground,
    hill_height,
    joined,
    lathe,
    moved,
    petal_streaks,
    petals,
    pinwheel_blade,
    rotation,
    seed_head,
    sheet,
    stem_path,
    translation,
    tube,
)

Vector = tuple[float, float, float]
TREES = (
    (-3.9, 8.3, 0.85),
    (-2.2, 9.3, 0.7),
    (2.7, 8.7, 0.9),
    (4.6, 8.0, 0.7),
    (8.5, 8.6, 1.0),
    (13, 9, 0.9),
    (-7.5, 8.4, 0.9),
)
STONES = ((0.75, 2.75), (1.02, 3.4), (0.8, 4.05), (1.15, 4.7), (-1.0, 3.2), (-1.35, 3.9))


def linear(colour: str) -> tuple[float, float, float, float]:
    """An sRGB colour such as "ff8040" as Blender's linear RGBA."""
    srgb = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb)
    return red, green, blue, 1.0


def nodes_of(created: Any) -> Any:
    """The node tree of a material or world that was just created; from Blender 5.0 on it has one from the start."""
    if created.node_tree is None:
        created.use_nodes = True
    return created.node_tree


def create_material(
    name: str, colours: str, pattern: str = "noise", scale: Vector = (8, 8, 8), **texture: float
) -> Any:
    """A material whose pattern runs through `colours`, separated by spaces.

    Args:
        name: of the material.
        colours: sRGB, such as "ff8040 ffffff".
        pattern: "noise", "bands" (wavy stripes), or "streaks" (the mesh's own attribute of that name).
        scale: how often the pattern repeats per unit, in object coordinates.
        texture: inputs of the texture node, such as Detail or Distortion.
    """
    created = bpy.data.materials.new(name)
    tree = nodes_of(created)
    nodes, links = tree.nodes, tree.links
    surface, ramp = nodes["Principled BSDF"], nodes.new("ShaderNodeValToRGB")
    stops, steps = ramp.color_ramp.elements, colours.split()
    # Noise stays near its middle, so its colours are set closer together.
    low, high = (0.32, 0.68) if pattern == "noise" else (0.0, 1.0)
    while len(stops) < len(steps):
        stops.new(0.5)
    for i, colour in enumerate(steps):
        stops[i].position = low + (high - low) * i / (len(steps) - 1)
        stops[i].color = linear(colour)
    if pattern == "streaks":
        attribute, split = nodes.new("ShaderNodeAttribute"), nodes.new("ShaderNodeSeparateXYZ")
        attribute.attribute_name = "streaks"
        links.new(attribute.outputs["Vector"], split.inputs[0])
        links.new(split.outputs["X"], ramp.inputs[0])
    else:
        place, stretch = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeMapping")
        stretch.inputs["Scale"].default_value = scale
        links.new(place.outputs["Object"], stretch.inputs["Vector"])
        texture_node = nodes.new({"noise": "ShaderNodeTexNoise", "bands": "ShaderNodeTexWave"}[pattern])
        for key, value in {"Scale": 1.0, **({"Detail": 3.0} if pattern == "noise" else {}), **texture}.items():
            texture_node.inputs[key].default_value = value
        links.new(stretch.outputs[0], texture_node.inputs["Vector"])
        links.new(texture_node.outputs["Factor" if "Factor" in texture_node.outputs else "Fac"], ramp.inputs[0])
    links.new(ramp.outputs[0], surface.inputs["Base Color"])
    surface.inputs["Specular IOR Level"].default_value = 0.2
    surface.inputs["Roughness"].default_value = 0.7
    return created


def make_emissive(material: Any, strength: float) -> Any:
    """Turn a material's colour into emission, as on a painted backdrop."""
    surface, links = material.node_tree.nodes["Principled BSDF"], material.node_tree.links
    links.new(surface.inputs["Base Color"].links[0].from_socket, surface.inputs["Emission Color"])
    links.remove(surface.inputs["Base Color"].links[0])
    surface.inputs["Base Color"].default_value = (0, 0, 0, 1)
    surface.inputs["Emission Strength"].default_value = strength
    return material


def add(shape: Shape, material: Any, at: np.ndarray | None = None, smooth: bool = True) -> Any:
    """Put a shape into the scene, its vertices moved by `at`, and return its object."""
    vertices, faces = shape if at is None else moved(shape, at)
    mesh = bpy.data.meshes.new(material.name)
    mesh.from_pydata(vertices.tolist(), [], faces)
    mesh.polygons.foreach_set("use_smooth", [smooth] * len(mesh.polygons))
    mesh.materials.append(material)
    created = bpy.data.objects.new(material.name, mesh)
    bpy.context.scene.collection.objects.link(created)
    return created


def add_petals(whorl: Whorl, material: Any, at: np.ndarray | None = None) -> Any:
    """Put a whorl of petals or leaves into the scene, with its streaks."""
    created = add(petals(*whorl), material, at)
    streaks = created.data.attributes.new("streaks", "FLOAT_VECTOR", "POINT")
    streaks.data.foreach_set("vector", petal_streaks(whorl[0]).ravel())
    return created


def reshape(thing: Any, shape: Shape) -> None:
    """Move the vertices of an object of the same kind of shape."""
    thing.data.vertices.foreach_set("co", np.ascontiguousarray(shape[0], np.float32).ravel())
    thing.data.update()


def place(thing: Any, matrix: np.ndarray) -> None:
    """Set an object's (4, 4) transform."""
    thing.matrix_world = Matrix(matrix.tolist())


Whorl = tuple[int, float, float, float, float, float]  # the arguments of `petals`


@dataclass(frozen=True)
class Flower:
    """The appearance and motion of one flower.

    Attributes:
        lean: how far the tip of the stem stands off its root in x and y.
        whorls: rings of petals, outermost first.
        swing: how far the tip sways.
        face: (yaw, pitch) of the head at a time, radians; zero faces the source camera.
        bloom: how far it is open at a time, 0 to 1.
    """

    root: Vector
    height: float
    lean: tuple[float, float]
    thickness: float
    whorls: list[Whorl]
    petal_materials: list[Any]
    seed_radius: float
    seed_count: int
    swing: float
    face: Callable[[float], tuple[float, float]]
    bloom: Callable[[float], float]

    def stem(self, t: float) -> np.ndarray:
        """(N, 3) the stem's path at a time."""
        x = self.lean[0] + self.swing * sin(tau * t + self.root[0] * 5)
        return stem_path(self.root, self.height, (x, self.lean[1] + 0.4 * self.swing * cos(tau * t)))

    def whorl(self, whorl: Whorl, t: float) -> Shape:
        """A ring of petals at a time: raised while the flower is closed."""
        count, length, width, lift, curl, turn = whorl
        return petals(count, length, width, lift + (1 - self.bloom(t)) * 0.75, curl, turn)


@dataclass
class Garden:
    """Everything in the scene that moves; each `add_` puts one such thing there."""

    movers: list[Callable[[float], None]] = field(default_factory=list)

    def pose(self, t: float) -> None:
        """Set every moving thing to its place at a time in [0, 1]."""
        for move in self.movers:
            move(t)

    def add_flower(self, flower: Flower, green: Any, yellow: Any) -> None:
        """A flower that sways, turns and opens."""
        stem = add(tube(flower.stem(0), flower.thickness), green)
        rows = [
            add_petals(whorl, material) for whorl, material in zip(flower.whorls, flower.petal_materials, strict=True)
        ]
        seeds = add(seed_head(flower.seed_radius, flower.seed_count), yellow)

        def move(t: float) -> None:
            path, (yaw, pitch) = flower.stem(t), flower.face(t)
            reshape(stem, tube(path, flower.thickness))
            head = translation(*path[-1]) @ rotation("z", yaw) @ rotation("x", pi / 2 - pitch)
            for part in (*rows, seeds):
                place(part, head @ rotation("z", 0.35 * sin(tau * t)))
            for row, whorl in zip(rows, flower.whorls, strict=True):
                reshape(row, flower.whorl(whorl, t))

        self.movers.append(move)

    def add_pinwheel(self, x: float, y: float, top: float, blades: list[Any], white: Any, yellow: Any) -> None:
        """A toy windmill that turns twice in the clip."""
        add(tube(np.array([[x, y, h] for h in (0.0, top / 2, top)]), 0.014), white)
        wheel = [add(pinwheel_blade(), blades[k % len(blades)], rotation("y", tau * k / 6)) for k in range(6)]
        wheel.append(add(ball(0.035), yellow))

        def move(t: float) -> None:
            turned = translation(x, y - 0.04, top) @ rotation("z", 0.25 * sin(tau * t)) @ rotation("y", 2 * tau * t)
            for part in wheel:
                place(part, turned)

        self.movers.append(move)

    def add_butterfly(self, orange: Any, dark: Any) -> None:
        """A butterfly that comes from behind the flower, passes its left and its front, and leaves to the right."""
        wings = [
            (add(wing, material), s)
            for wing, material in zip(butterfly_wing(), (orange, dark), strict=True)
            for s in (1, -1)
        ]
        feelers = [np.array([[s * 0.01, 0.10, 0.0], [s * 0.03, 0.17, 0.02], [s * 0.07, 0.24, 0.05]]) for s in (1, -1)]
        trunk = moved(ball(0.028), np.diag([1, 4.5, 1, 1.0]))
        body = add(joined([trunk, *(tube(feeler, 0.005, 6) for feeler in feelers)]), dark)

        def move(t: float) -> None:
            a = radians(-160 + 235 * t)
            at = translation(0.85 * sin(a), 3.05 - 0.62 * cos(a), 1.72 + 0.1 * sin(tau * t * 1.5))
            heading = (
                at @ rotation("z", 0.5 * cos(a) - 0.25) @ rotation("y", 0.45 * cos(a)) @ rotation("x", radians(58))
            )
            place(body, heading)
            flap = 0.5 + 0.6 * sin(tau * 6 * t)
            for wing, side in wings:
                place(wing, heading @ rotation("y", -side * flap) @ np.diag([side, 1, 1, 1.0]))

        self.movers.append(move)


def add_far(wood: Any) -> None:
    """A painted sky that stands upright, so that every pixel has a depth; hills; trees."""
    paint = create_material("sky", "6fb4e4 93cdf0 d7ecf6 ffffff", scale=(0.35, 1, 0.9))
    sky = add(sheet(np.array([[(x, 12.4, z) for x in (-60, 60)] for z in (-2, 40)], float)), make_emissive(paint, 0.95))
    sky.visible_shadow = sky.visible_diffuse = False
    add(ground(), create_material("grass", "47752f 5f8f38 7ba548 a3bb60", scale=(2.6, 2.6, 2.6), Detail=4.0))
    crown = create_material("crown", "2f6d3a 4f9448 86bb5e", scale=(4, 4, 4))
    for x, y, size in TREES:
        z = float(hill_height(np.array(x), np.array(y)))
        add(lathe([(0.11, 0), (0.08, 1.0)], 12), wood, translation(x, y, z - 0.1))
        for dx, dz, r in ((0, 1.2, 1.0), (-0.5, 0.85, 0.66), (0.5, 0.95, 0.7)):
            at = translation(x + dx * size, y - 0.1 * r, z + dz * size + 0.3)
            add(ball(size * r * 0.75, 16, 28), crown, at)


def add_middle(wood: Any, white: Any, dark: Any) -> None:
    """A fence with wires, a bird house, stepping stones."""
    for k in range(-9, 12):
        at = translation(k * 0.95 + 0.3, 5.3, 0)
        add(box(0.1, 0.1, 1.0), white, at @ translation(0, 0, -0.02), smooth=False)
        add(lathe([(0.085, 0.98), (0.001, 1.12)], 4), white, at @ rotation("z", pi / 4), smooth=False)
    reach = np.linspace(-9, 11, 80)
    for height in (0.28, 0.56, 0.84):
        sag = height - 0.02 * np.cos((reach - 0.3) / 0.95 * tau)
        add(tube(np.stack([reach, 0 * reach + 5.24, sag], -1), 0.012, 8), dark)
    red = create_material("roof", "b8382e d9573f", "bands", (12, 12, 12), Distortion=0.5)
    blue = create_material("boards", "5f9fc0 78b6d3 96cbe2", "bands", (1, 1, 11), Distortion=0.3)
    house, outwards = translation(-1.55, 4.7, 0), rotation("x", pi / 2)
    add(lathe([(0.035, 0), (0.035, 1.4)], 12), wood, house)
    add(box(0.46, 0.42, 0.42), blue, house @ translation(0, 0, 1.4), smooth=False)
    gable = [(x * 0.23, y * 0.21, 1.82) for y in (-1, 1) for x in (-1, 1)] + [(0, -0.21, 2.06), (0, 0.21, 2.06)]
    add((np.array(gable), [(0, 1, 4), (2, 5, 3)]), blue, house, smooth=False)
    for side in (-1, 1):
        slope = translation(side * 0.15, 0, 1.925) @ rotation("y", side * 0.81)
        add(box(0.42, 0.56, 0.035), red, house @ slope, smooth=False)
    add(lathe([(0.001, 0), (0.085, 0), (0.085, 0.01)], 24), dark, house @ translation(0, -0.212, 1.64) @ outwards)
    add(lathe([(0.012, 0), (0.012, 0.12)], 8), wood, house @ translation(0, -0.2, 1.5) @ outwards)
    stone = create_material("stone", "8c8a86 b3b0a8 d2cec2", scale=(6, 6, 6))
    for k, (x, y) in enumerate(STONES):
        add(ball(1.0, 12, 24), stone, translation(x, y, 0) @ rotation("z", k) @ np.diag([0.27, 0.2, 0.05, 1.0]))


def add_pot(white: Any) -> None:
    """The pot, the leaves in it, and grass about it."""
    clay = create_material("clay", "a8532f c86f43 dd8a5a", scale=(5, 5, 16))
    profile = [(0.2, 0.0), (0.28, 0.36), (0.32, 0.36), (0.32, 0.46), (0.285, 0.46), (0.27, 0.4), (0.001, 0.4)]
    at = translation(0, 3.15, 0)
    add(lathe(profile, 48), clay, at, smooth=False)
    add(lathe([(0.262, 0.2), (0.272, 0.22), (0.274, 0.25), (0.268, 0.27)], 48), white, at)
    leaf = create_material("leaf", "2d6a2c 4d9138 93c45a", "streaks")
    add_petals((7, 0.34, 0.075, 0.95, 1.5, 0.2), leaf, at @ translation(0, 0, 0.4))
    blade = create_material("blade", "3f7a2a 7fb043 a7cc5c", scale=(3, 3, 3))
    add(grass_blades(150, np.random.default_rng(4)), blade)


def open_slowly(t: float) -> float:
    """0 to 1 with a soft start and end."""
    return t * t * (3 - 2 * t)


def add_flowers(garden: Garden, yellow: Any) -> None:
    """The large flower that is the clip's subject, and three small ones."""
    green = create_material("stem", "2f6b2a 5f9a3c", scale=(9, 9, 9))
    outer = create_material("outer petals", "7d1548 d5306e f4668f ffb3c4", "streaks")
    middle = create_material("middle petals", "94184a e64a6e ff8a88 ffcdbd", "streaks")
    inner = create_material("inner petals", "ab2540 f8704f ffb070 ffe4b0", "streaks")
    subject = Flower(
        root=(0, 3.15, 0.4),
        height=1.12,
        lean=(0.03, -0.12),
        thickness=0.017,
        whorls=[(11, 0.5, 0.125, 0.25, 0.5, 0.0), (10, 0.4, 0.11, 0.6, 0.7, 0.3), (8, 0.28, 0.085, 0.95, 0.75, 0.1)],
        petal_materials=[outer, middle, inner],
        seed_radius=0.13,
        seed_count=130,
        swing=0.09,
        face=lambda t: (0.75 - 1.3 * open_slowly(t), 0.22 + 0.12 * sin(tau * t)),
        bloom=lambda t: 0.25 + 0.75 * open_slowly(t),
    )
    garden.add_flower(subject, green, yellow)
    violet = create_material("small petals", "6a5bd0 9d90f0 ddd8ff", "streaks")
    for root, height, lean, yaw in (
        ((-0.14, 3.1, 0.4), 0.62, (-0.38, -0.1), -0.35),
        ((0.15, 3.2, 0.4), 0.78, (0.42, -0.02), 0.5),
        ((0.1, 3.02, 0.4), 0.34, (0.28, -0.22), 0.2),
    ):
        small = Flower(
            root=root,
            height=height,
            lean=lean,
            thickness=0.009,
            whorls=[(12, 0.17, 0.036, 0.12, 0.25, 0.0)],
            petal_materials=[violet],
            seed_radius=0.05,
            seed_count=40,
            swing=0.05,
            face=lambda t, yaw=yaw: (yaw + 0.3 * sin(tau * t), 0.45),
            bloom=lambda t: 1.0,
        )
        garden.add_flower(small, green, yellow)


def add_light() -> None:
    """A warm sun from behind the camera's left shoulder, and a blue air."""
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle, sun.color = 3.6, radians(2.5), (1.0, 0.93, 0.82)
    lamp = bpy.data.objects.new("sun", sun)
    bpy.context.scene.collection.objects.link(lamp)
    place(lamp, rotation("z", radians(-38)) @ rotation("x", radians(48)))
    air = bpy.data.worlds.new("air")
    background = nodes_of(air).nodes["Background"]
    background.inputs["Color"].default_value, background.inputs["Strength"].default_value = linear("bcd8f2"), 0.62
    bpy.context.scene.world = air


def build_garden() -> Garden:
    """The whole scene in the current, empty file."""
    garden = Garden()
    wood = create_material("wood", "8a5a33 b98350 d6a771", "bands", (3, 3, 14), Distortion=5.0)
    white = create_material("white paint", "d8d4c6 f7f4ea", scale=(7, 7, 2))
    dark, yellow = create_material("dark", "2b1a16 3a2620"), create_material("yellow", "f2b21c ffd95a")
    add_far(wood)
    add_middle(wood, white, dark)
    add_pot(white)
    add_flowers(garden, yellow)
    blades = [create_material("paper", colours) for colours in ("e8433f ef6a55", "ffc93c ffdc76", "3f8fd6 66aee6")]
    garden.add_pinwheel(1.32, 4.3, 1.42, blades, white, yellow)
    garden.add_butterfly(create_material("wing", "ff8a1f ffb347 ffd27a", scale=(14, 14, 14)), dark)
    add_light()
    return garden
