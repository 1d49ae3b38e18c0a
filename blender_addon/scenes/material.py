"""The look of a scene: the footage as it was filmed, and one flat colour wherever it saw nothing.

A face that stretches from a foreground to its background (a curtain of the DW-Mesh) is seen edge-on from the source
camera. The shader tests that angle, so curtains show as unseen in every frame without any further data.
"""

from __future__ import annotations

import math

import bpy

from ex4d_core.scene import Scene

from ..paths import to_blend
from .color_space import tag_as_finished
from .link import DEFAULT_UNSEEN_COLOR, UNSEEN_NODE

# Who looks along the ray of a pixel, to within this, sees there what the source camera saw: from its own place every
# outline's curtain is the pixel-wide step from one surface to the next, and nothing is missing.
ALIGNED_DEGREES = 0.25
# Faces seen at less than this angle are curtains: EX-4D's threshold for the smallest angle of a face, which for a face
# of one pixel is nearly the angle at which the camera sees it.
CURTAIN_DEGREES = 2.5

SOURCE_EYE = "ex4d_source_eye"


def footage_image(scene: Scene, blender_scene: bpy.types.Scene) -> bpy.types.Image:
    """The footage as a movie image that keeps its colours."""
    image = bpy.data.images.load(str(scene.path("footage")), check_existing=True)
    image.filepath = to_blend(scene.path("footage"))
    image.alpha_mode = "NONE"
    tag_as_finished(blender_scene, image.colorspace_settings)
    return image


def footage_material(
    scene: Scene, image: bpy.types.Image, frame_start: int, eye: tuple[float, float, float] | None
) -> bpy.types.Material:
    """A material that emits the footage, and the unseen colour on curtains.

    Args:
        frame_start: Blender frame that shows the footage's first frame.
        eye: position of a source camera that stands still, in the scene's world; None for one that moves, whose
            position is the object's animated custom property ``ex4d_source_eye``.
    """
    material = bpy.data.materials.new(f"{scene.manifest.name} footage")
    nodes, link = _empty_tree(material)

    texture = _node(nodes, "ShaderNodeTexImage", (-300, 200), "Footage")
    texture.image = image
    texture.extension = "EXTEND"
    # A face is about one texel wide: nothing is gained by filtering, which needs mipmaps of every frame of the movie
    # and goes wrong on faces smaller than a screen pixel.
    texture.interpolation = "Closest"
    user = texture.image_user
    user.use_auto_refresh = True
    user.use_cyclic = False
    user.frame_duration = scene.manifest.frames
    user.frame_start = frame_start
    user.frame_offset = 0
    uv = _node(nodes, "ShaderNodeUVMap", (-500, 200))
    uv.uv_map = "UVMap"
    link(uv.outputs["UV"], texture.inputs["Vector"])

    seen = _node(nodes, "ShaderNodeEmission", (0, 200), "Seen")
    link(texture.outputs["Color"], seen.inputs["Color"])
    unseen = _unseen_emission(nodes, (0, 60))
    mix = _node(nodes, "ShaderNodeMixShader", (200, 200))
    link(_curtain_test(nodes, link, eye), mix.inputs["Fac"])
    link(seen.outputs["Emission"], mix.inputs[1])
    link(unseen.outputs["Emission"], mix.inputs[2])
    output = _node(nodes, "ShaderNodeOutputMaterial", (400, 200))
    link(mix.outputs["Shader"], output.inputs["Surface"])
    nodes.active = texture  # what Solid view shows
    return material


def unseen_material(scene: Scene) -> bpy.types.Material:
    """A material in the unseen colour alone."""
    material = bpy.data.materials.new(f"{scene.manifest.name} unseen")
    nodes, link = _empty_tree(material)
    output = _node(nodes, "ShaderNodeOutputMaterial", (200, 0))
    link(_unseen_emission(nodes, (0, 0)).outputs["Emission"], output.inputs["Surface"])
    material.diffuse_color = (*DEFAULT_UNSEEN_COLOR, 1.0)
    return material


def _curtain_test(nodes: bpy.types.Nodes, link, eye: tuple[float, float, float] | None) -> bpy.types.NodeSocket:
    """1 on faces that the source camera sees at a grazing angle, for a viewer who looks from aside; else 0."""
    position = _node(nodes, "ShaderNodeTexCoord", (-1100, -100))
    ray = _node(nodes, "ShaderNodeVectorMath", (-900, -100), "From Source Camera")
    ray.operation = "SUBTRACT"
    link(position.outputs["Object"], ray.inputs[0])
    if eye is None:
        attribute = _node(nodes, "ShaderNodeAttribute", (-1100, -300), "Source Camera")
        attribute.attribute_type = "OBJECT"
        attribute.attribute_name = SOURCE_EYE
        link(attribute.outputs["Vector"], ray.inputs[1])
    else:
        ray.inputs[1].default_value = eye
    direction = _vector_math(nodes, link, "NORMALIZE", (-700, -100), ray.outputs[0])

    geometry = _node(nodes, "ShaderNodeNewGeometry", (-1100, -500))
    turned = _node(nodes, "ShaderNodeVectorTransform", (-900, -500))
    turned.vector_type, turned.convert_from, turned.convert_to = "NORMAL", "WORLD", "OBJECT"
    link(geometry.outputs["True Normal"], turned.inputs["Vector"])
    normal = _vector_math(nodes, link, "NORMALIZE", (-700, -500), turned.outputs["Vector"])

    dot = _node(nodes, "ShaderNodeVectorMath", (-500, -100))
    dot.operation = "DOT_PRODUCT"
    link(direction, dot.inputs[0])
    link(normal, dot.inputs[1])
    size = _node(nodes, "ShaderNodeMath", (-300, -100))
    size.operation = "ABSOLUTE"
    link(dot.outputs["Value"], size.inputs[0])
    curtain = _node(nodes, "ShaderNodeMath", (-100, -100), "Curtain")
    curtain.operation = "LESS_THAN"
    curtain.inputs[1].default_value = math.sin(math.radians(CURTAIN_DEGREES))
    link(size.outputs["Value"], curtain.inputs[0])

    viewer = _node(nodes, "ShaderNodeVectorTransform", (-900, -700))
    viewer.vector_type, viewer.convert_from, viewer.convert_to = "VECTOR", "WORLD", "OBJECT"
    link(geometry.outputs["Incoming"], viewer.inputs["Vector"])
    along = _node(nodes, "ShaderNodeVectorMath", (-500, -700))
    along.operation = "DOT_PRODUCT"
    link(direction, along.inputs[0])
    link(_vector_math(nodes, link, "NORMALIZE", (-700, -700), viewer.outputs["Vector"]), along.inputs[1])
    # From the surface to the viewer, against from the camera to the surface: -1 on the same ray.
    aside = _node(nodes, "ShaderNodeMath", (-300, -700), "From Aside")
    aside.operation = "GREATER_THAN"
    aside.inputs[1].default_value = -math.cos(math.radians(ALIGNED_DEGREES))
    link(along.outputs["Value"], aside.inputs[0])
    both = _node(nodes, "ShaderNodeMath", (0, -300))
    both.operation = "MULTIPLY"
    link(curtain.outputs["Value"], both.inputs[0])
    link(aside.outputs["Value"], both.inputs[1])
    return both.outputs["Value"]


def _empty_tree(material: bpy.types.Material):
    if material.node_tree is None:  # from Blender 5.0 on materials have one from the start
        material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    return tree.nodes, tree.links.new


def _node(nodes: bpy.types.Nodes, kind: str, location: tuple[int, int], label: str = "") -> bpy.types.Node:
    node = nodes.new(kind)
    node.location = location
    if label:
        node.name = node.label = label
    return node


def _vector_math(nodes, link, operation: str, location: tuple[int, int], source) -> bpy.types.NodeSocket:
    node = _node(nodes, "ShaderNodeVectorMath", location)
    node.operation = operation
    link(source, node.inputs[0])
    return node.outputs["Vector"]


def _unseen_emission(nodes: bpy.types.Nodes, location: tuple[int, int]) -> bpy.types.Node:
    node = _node(nodes, "ShaderNodeEmission", location, UNSEEN_NODE)
    node.inputs["Color"].default_value = (*DEFAULT_UNSEEN_COLOR, 1.0)
    return node
