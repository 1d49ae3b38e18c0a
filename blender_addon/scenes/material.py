"""The material of a scene: the footage as filmed, and one flat colour for unseen areas.

A stretched face of the DW-Mesh spans a depth discontinuity, from a foreground to its background, so the source camera
sees it edge-on. The shader tests that angle, so stretched faces show as unseen in every frame without further data.
From far aside of the source camera, where they would hide what was seen, they fade.
"""

from __future__ import annotations

import math
from typing import Any

import bpy

from ex4d_core.scene import Scene

from ..paths import to_blend
from .color_space import tag_as_filmed
from .link import DEFAULT_UNSEEN_COLOR, UNSEEN_NODE

# A viewer who looks along the ray of a pixel, to within this, sees what the source camera saw there: from its position
# a stretched face is the pixel-wide step from one surface to the next, and nothing is missing.
ALIGNED_DEGREES = 0.25
# Faces seen at less than this angle are stretched: EX-4D's threshold for the smallest angle of a face, which for a face
# of one pixel is nearly the angle at which the camera sees it.
STRETCHED_DEGREES = 2.5

# Unseen areas are opaque for viewers up to this many degrees aside of the source camera's ray, and have FADED_OPACITY
# from the second angle on. New cameras stay within the first, or most of their images would be generated.
FADE_DEGREES = (60.0, 75.0)
FADED_OPACITY = 0.12

# The custom property, kept in .blend files, with the source camera's position.
SOURCE_EYE = "ex4d_source_eye"


def footage_image(scene: Scene, blender_scene: bpy.types.Scene) -> bpy.types.Image:
    """The footage as a movie image that keeps its colours."""
    image = bpy.data.images.load(str(scene.path("footage")), check_existing=True)
    image.filepath = to_blend(scene.path("footage"))
    image.alpha_mode = "NONE"
    tag_as_filmed(blender_scene, image)
    return image


def footage_material(
    scene: Scene, image: bpy.types.Image, frame_start: int, eye: tuple[float, ...] | None
) -> bpy.types.Material:
    """A material that emits the footage, and the unseen colour on stretched faces.

    Args:
        scene: the package.
        image: its footage.
        frame_start: Blender frame that shows the footage's first frame.
        eye: position of a static source camera in the scene's world; None for a moving one, whose position is the
            object's animated custom property `SOURCE_EYE`.
    """
    tree = _empty_tree(material := bpy.data.materials.new(f"{scene.manifest.name} footage"))
    uv = _node(tree, "ShaderNodeUVMap", (-500, 200))
    uv.uv_map = "UVMap"
    texture = _node(tree, "ShaderNodeTexImage", (-300, 200), uv.outputs["UV"], label="Footage")
    texture.image = image
    texture.extension = "EXTEND"
    # A face is about one texel wide: filtering gains nothing, needs mipmaps of every frame of the movie, and is wrong
    # on faces smaller than a screen pixel.
    texture.interpolation = "Closest"
    user = texture.image_user
    user.use_auto_refresh, user.use_cyclic = True, False
    user.frame_duration, user.frame_start, user.frame_offset = scene.manifest.frames, frame_start, 0
    seen = _node(tree, "ShaderNodeEmission", (0, 200), texture.outputs["Color"], label="Seen").outputs["Emission"]
    stretched, along = _stretched_test(tree, eye)
    mix = _node(tree, "ShaderNodeMixShader", (200, 200), stretched, seen, _faded(tree, along))
    _node(tree, "ShaderNodeOutputMaterial", (400, 200), mix.outputs["Shader"])
    tree.nodes.active = texture  # what Solid view shows
    return material


def _stretched_test(tree: bpy.types.NodeTree, eye: tuple[float, ...] | None) -> tuple[Any, Any]:
    """A socket that is 1 on faces that the source camera sees edge-on, unless viewed from its position, else 0.

    The second socket is the cosine between the directions from the surface to the viewer and from the camera to the
    surface: -1 on the same ray.
    """
    position = _node(tree, "ShaderNodeTexCoord", (-1100, -100)).outputs["Object"]
    source_eye: Any = eye
    if eye is None:
        attribute = _node(tree, "ShaderNodeAttribute", (-1100, -300), label="Source Camera")
        attribute.attribute_type, attribute.attribute_name = "OBJECT", SOURCE_EYE
        source_eye = attribute.outputs["Vector"]
    ray = _vector(tree, "SUBTRACT", (-900, -100), position, source_eye, label="From Source Camera")
    direction = _vector(tree, "NORMALIZE", (-700, -100), ray)

    geometry = _node(tree, "ShaderNodeNewGeometry", (-1100, -500)).outputs
    normal = _to_object(tree, "NORMAL", -500, geometry["True Normal"])
    cosine = _vector(tree, "DOT_PRODUCT", (-500, -100), direction, normal)
    absolute = _math(tree, "ABSOLUTE", (-300, -100), cosine)
    edge_on = math.sin(math.radians(STRETCHED_DEGREES))
    stretched = _math(tree, "LESS_THAN", (-100, -100), absolute, edge_on, label="Stretched Face")

    to_viewer = _to_object(tree, "VECTOR", -700, geometry["Incoming"])
    along = _vector(tree, "DOT_PRODUCT", (-500, -700), direction, to_viewer)
    same_ray = -math.cos(math.radians(ALIGNED_DEGREES))
    aside = _math(tree, "GREATER_THAN", (-300, -700), along, same_ray, label="From Aside")
    return _math(tree, "MULTIPLY", (0, -300), stretched, aside), along


def _faded(tree: bpy.types.NodeTree, along: Any) -> bpy.types.NodeSocket:
    """The unseen colour, transparent for viewers far aside of the source camera's ray."""
    opacity: Any = _node(tree, "ShaderNodeMapRange", (-100, -500), along, label="Fade From Aside")
    from_cosine, to_cosine = (-math.cos(math.radians(degrees)) for degrees in FADE_DEGREES)
    opacity.inputs["From Min"].default_value, opacity.inputs["From Max"].default_value = from_cosine, to_cosine
    opacity.inputs["To Min"].default_value, opacity.inputs["To Max"].default_value = 1.0, FADED_OPACITY
    clear = _node(tree, "ShaderNodeBsdfTransparent", (0, -60)).outputs["BSDF"]
    mix = _node(tree, "ShaderNodeMixShader", (200, -100), opacity.outputs["Result"], clear, _unseen(tree, (0, 60)))
    return mix.outputs["Shader"]


def _empty_tree(material: bpy.types.Material) -> bpy.types.NodeTree:
    if material.node_tree is None:  # from Blender 5.0 on materials have one from the start
        material.use_nodes = True
    tree = material.node_tree
    assert tree is not None
    tree.nodes.clear()
    return tree


# The stubs know neither which class a node's type name stands for nor the classes of its sockets.
def _node(tree: bpy.types.NodeTree, kind: str, location: tuple[int, int], *inputs: Any, label: str = "") -> Any:
    """A new node with its first inputs linked to sockets or set to values."""
    node: Any = tree.nodes.new(kind)
    node.location = location
    if label:
        node.name = node.label = label
    for target, source in zip(node.inputs, inputs, strict=False):
        if isinstance(source, bpy.types.NodeSocket):
            tree.links.new(source, target)
        else:
            target.default_value = source
    return node


def _math(tree: bpy.types.NodeTree, operation: str, location: tuple[int, int], *inputs: Any, label: str = "") -> Any:
    node = _node(tree, "ShaderNodeMath", location, *inputs, label=label)
    node.operation = operation
    return node.outputs["Value"]


def _vector(tree: bpy.types.NodeTree, operation: str, location: tuple[int, int], *inputs: Any, label: str = "") -> Any:
    node = _node(tree, "ShaderNodeVectorMath", location, *inputs, label=label)
    node.operation = operation
    return node.outputs["Value" if operation == "DOT_PRODUCT" else "Vector"]


def _to_object(tree: bpy.types.NodeTree, kind: str, y: int, source: bpy.types.NodeSocket) -> Any:
    """A world-space normal or vector in the object's space, normalised."""
    node = _node(tree, "ShaderNodeVectorTransform", (-900, y), source)
    node.vector_type, node.convert_from, node.convert_to = kind, "WORLD", "OBJECT"
    return _vector(tree, "NORMALIZE", (-700, y), node.outputs["Vector"])


def _unseen(tree: bpy.types.NodeTree, location: tuple[int, int]) -> bpy.types.NodeSocket:
    node = _node(tree, "ShaderNodeEmission", location, (*DEFAULT_UNSEEN_COLOR, 1.0), label=UNSEEN_NODE)
    node.label = "Unseen Color"
    return node.outputs["Emission"]
