"""Shows an imported scene under another depth offset and far limit, live: in every frame, in playback and in renders.

Nodes behind the scene's positions move each vertex along its ray from the source camera. Takes show the scene package,
whose depth stays as it is until the artist applies the change (see `footage.depth_offset`).
"""

from __future__ import annotations

from typing import Any

import bpy

from ex4d_core.depth_mapping import MAX_OFFSET, MIN_OFFSET, DepthMapping
from ex4d_core.scene_manifest import SceneError

from .link import link_of, open_scene

OFFSET_DESCRIPTION = (
    "Unknown offset of estimated depth: higher brings the background nearer, lower lets it recede. Flat things stay "
    "flat, so judge it by angles: walls that lean, corners that are not square, round things that look squashed"
)
FAR_LIMIT_DESCRIPTION = "Farthest depth as a multiple of the nearest; 0 leaves it as it is"
MODIFIER = "EX-4D Depth Offset"
# Blender keeps 32 bits of a number.
_SAME = 1e-6
# A far limit under this means the scene's own.
_LEAST_FAR_LIMIT = 1.01


def _show(fields: Any, _: bpy.types.Context) -> None:
    show_depth(fields.id_data)


class EX4D_Depth(bpy.types.PropertyGroup):
    """On every object (``Object.ex4d_depth``): how an imported scene is shown."""

    offset: bpy.props.FloatProperty(
        name="Depth Offset",
        description=OFFSET_DESCRIPTION,
        default=0.0,
        min=MIN_OFFSET,
        max=MAX_OFFSET,
        soft_min=-0.5,
        soft_max=1.0,
        step=1,
        precision=3,
        update=_show,
    )
    far_limit: bpy.props.FloatProperty(
        name="Far Limit",
        description=FAR_LIMIT_DESCRIPTION,
        default=0.0,
        min=0.0,
        max=1e6,
        soft_max=500.0,
        precision=1,
        update=_show,
    )


CLASSES = (EX4D_Depth,)
PROPERTIES = ((bpy.types.Object, "ex4d_depth", bpy.props.PointerProperty(type=EX4D_Depth)),)


def depth_of(scene_object: bpy.types.Object) -> EX4D_Depth:
    """How an imported scene is shown."""
    return scene_object.ex4d_depth  # pyright: ignore[reportAttributeAccessIssue]


def shown_mapping(scene_object: bpy.types.Object, own: DepthMapping) -> DepthMapping:
    """The mapping that an imported scene is shown under; its package's own where nothing was changed.

    Args:
        scene_object: the imported scene.
        own: of its package.
    """
    fields = depth_of(scene_object)
    if not is_changed(scene_object):
        return own
    offset = own.offset if abs(fields.offset - own.offset) < _SAME else fields.offset
    return own.changed(offset, fields.far_limit if fields.far_limit >= _LEAST_FAR_LIMIT else None)


def is_changed(scene_object: bpy.types.Object) -> bool:
    """Whether a scene is shown under another offset or far limit than its package has."""
    return MODIFIER in scene_object.modifiers


def show_depth(scene_object: bpy.types.Object) -> None:
    """Show a scene as its fields say; called when the artist changes one."""
    fields, camera = depth_of(scene_object), link_of(scene_object).source_camera
    try:
        own = open_scene(scene_object).manifest.mapping
    except SceneError:
        return  # the panel says that the folder is missing
    same_limit = fields.far_limit < _LEAST_FAR_LIMIT or abs(fields.far_limit / own.far_limit - 1) < _SAME
    if abs(fields.offset - own.offset) < _SAME and same_limit:
        _remove(scene_object)
    elif camera is not None:
        modifier = scene_object.modifiers.get(MODIFIER) or _add(scene_object, camera)
        _set(modifier.node_group, own, shown_mapping(scene_object, own))


def _add(scene_object: bpy.types.Object, camera: bpy.types.Object) -> Any:
    modifier: Any = scene_object.modifiers.new(MODIFIER, "NODES")
    modifier.node_group = _nodes(camera)
    modifier.show_expanded = False
    return modifier


def _remove(scene_object: bpy.types.Object) -> None:
    modifier: Any = scene_object.modifiers.get(MODIFIER)
    if modifier is None:
        return
    tree = modifier.node_group
    scene_object.modifiers.remove(modifier)
    if tree is not None and tree.users == 0:
        bpy.data.node_groups.remove(tree)


def _set(tree: Any, own: DepthMapping, shown: DepthMapping) -> None:
    """Write both mappings into the nodes: shown disparity, 1 at the nearest point, is slope / z + shift."""
    slope = own.nearest * (1 + own.offset) / (1 + shown.offset)
    values = {
        "Slope": slope,
        "Shift": (shown.offset - own.offset) / (1 + shown.offset),
        "Farthest": 1 / shown.far_limit,
        "Nearest": shown.nearest,
    }
    for name, value in values.items():
        tree.nodes[name].outputs[0].default_value = value


def _nodes(camera: bpy.types.Object) -> Any:
    """Nodes that move each vertex along its ray from the camera."""
    tree: Any = bpy.data.node_groups.new(MODIFIER, "GeometryNodeTree")
    tree.is_modifier = True
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")

    def node(kind: str, *inputs: Any, **settings: Any) -> Any:
        """A node with inputs from other nodes' sockets, or of its own values, in order."""
        made = tree.nodes.new(kind)
        for name, value in settings.items():
            setattr(made, name, value)
        for socket, given in zip((one for one in made.inputs if one.enabled), inputs, strict=False):
            if isinstance(given, bpy.types.NodeSocket):
                tree.links.new(socket, given)
            else:
                socket.default_value = given
        return made

    def math(operation: str, *inputs: Any) -> Any:
        return node("ShaderNodeMath", *inputs, operation=operation).outputs[0]

    def vector(operation: str, *inputs: Any, output: str = "Vector") -> Any:
        return node("ShaderNodeVectorMath", *inputs, operation=operation).outputs[output]

    def number(name: str) -> Any:
        return node("ShaderNodeValue", name=name, label=name).outputs[0]

    source = node("GeometryNodeObjectInfo", transform_space="RELATIVE")
    source.inputs["Object"].default_value = camera
    eye = source.outputs["Location"]
    ahead = node("FunctionNodeRotateVector", (0.0, 0.0, -1.0), source.outputs["Rotation"]).outputs[0]
    ray = vector("SUBTRACT", node("GeometryNodeInputPosition").outputs[0], eye)
    z = vector("DOT_PRODUCT", ray, ahead, output="Value")
    disparity = math("ADD", math("DIVIDE", number("Slope"), z), number("Shift"))
    disparity = math("MINIMUM", math("MAXIMUM", disparity, number("Farthest")), 1.0)
    longer = math("DIVIDE", number("Nearest"), math("MULTIPLY", disparity, z))
    scaled = node("ShaderNodeVectorMath", operation="SCALE")
    tree.links.new(scaled.inputs["Vector"], ray)
    tree.links.new(scaled.inputs["Scale"], longer)
    moved = node("GeometryNodeSetPosition")
    tree.links.new(moved.inputs["Geometry"], node("NodeGroupInput").outputs[0])
    tree.links.new(moved.inputs["Position"], vector("ADD", eye, scaled.outputs[0]))
    tree.links.new(node("NodeGroupOutput").inputs[0], moved.outputs[0])
    return tree
