"""Surfaces that emit their own colour, so that it is the same from everywhere, and shapes the scenes share."""

from __future__ import annotations

from math import pi
from typing import Any

import bpy
import numpy as np

from sample_garden import add, create_material, make_emissive, nodes_of
from sample_shapes import Shape, lathe, sheet

# Where the light would come from, and the brightness of surfaces that face away from it and towards it.
LIGHT = (-0.45, -0.6, 0.66)
DARKEST, BRIGHTEST = 0.35, 1.0


def painted(name: str, colors: str, pattern: str = "noise", scale: tuple = (8, 8, 8), **texture: float) -> Any:
    """A material as `create_material` makes it, brighter on the side of the light, with no lamp and no noise."""
    material = make_emissive(create_material(name, colors, pattern, scale, **texture), 1.0)
    nodes, links = material.node_tree.nodes, material.node_tree.links
    surface = nodes["Principled BSDF"]
    surface.inputs["Specular IOR Level"].default_value = 0.0
    normal, facing, strength = (
        nodes.new(kind) for kind in ("ShaderNodeNewGeometry", "ShaderNodeVectorMath", "ShaderNodeMapRange")
    )
    facing.operation, facing.inputs[1].default_value = "DOT_PRODUCT", LIGHT
    for key, value in (("From Min", -1), ("From Max", 1), ("To Min", DARKEST), ("To Max", BRIGHTEST)):
        strength.inputs[key].default_value = value
    links.new(normal.outputs["Normal"], facing.inputs[0])
    links.new(facing.outputs["Value"], strength.inputs["Value"])
    links.new(strength.outputs["Result"], surface.inputs["Emission Strength"])
    return material


def mirror(name: str, tint: float) -> Any:
    """A perfect mirror that returns a share of the light."""
    material = bpy.data.materials.new(name)
    surface = nodes_of(material).nodes["Principled BSDF"]
    surface.inputs["Metallic"].default_value, surface.inputs["Roughness"].default_value = 1.0, 0.0
    surface.inputs["Base Color"].default_value = (tint * 0.9, tint * 0.95, tint, 1)
    return material


def add_sky(colors: str = "5b9bd0 a9cde6 f2f4ee", radius: float = 30.0) -> None:
    """A painted dome, so that every camera sees a surface in every pixel."""
    angles = np.linspace(-0.12, 0.499, 24) * pi
    dome = lathe([(radius * np.cos(a), radius * np.sin(a)) for a in angles], 64)
    sky = painted("sky", colors, scale=(0.08, 0.08, 0.3))
    add(dome, sky)


def add_ground(material: Any, reach: float = 31.0) -> None:
    """Level ground at z = 0, to beyond the dome."""
    steps = np.linspace(-reach, reach, 40)
    x, y = np.meshgrid(steps, steps)
    add(sheet(np.stack([x, y, 0 * x], -1)), material)


def slab(corner: tuple[float, float, float], size: tuple[float, float, float]) -> Shape:
    """A box from its corner of least x, y, z."""
    x, y, z = np.array(corner)[:, None] + np.array([[0, 1]]) * np.array(size)[:, None]
    corners = [(a, b, c) for c in z for a, b in ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))]
    return np.array(corners), [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
