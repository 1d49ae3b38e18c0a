"""The compositor's node of a shot: its passes, a take below them, and both as one image.

Each shot has a node group, which a group node stands for in the compositor of its Blender scene. New passes update
the group in place; whatever else is in either tree is left alone, and nothing is connected that F12 would render.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from ..paths import to_blend
from .color_spaces import blenders_name

# Custom property of a shot's node group.
SHOT_KEY = "ex4d_passes_of"
_PASSES, _TAKE, _OVER, _OUTPUT = "EX-4D Passes", "EX-4D Take", "EX-4D Over", "EX-4D Output"
# Outputs of the group node by the socket of the image of passes that they have; Image comes before them.
_LAYERS = {"Combined": "Passes", "Alpha": "Alpha", "Depth": "Depth", "P": "Position"}
_MOTION = {"forward": "Forward Motion", "backward": "Backward Motion"}
# Of the group node with all outputs, so that it stands above the other nodes.
_HEIGHT = 340.0
_SOCKETS = {"RGBA": "NodeSocketColor", "VALUE": "NodeSocketFloat", "VECTOR": "NodeSocketVector"}


@dataclass(frozen=True)
class Sequence:
    """Numbered images as the compositor plays them.

    Attributes:
        first: file of the first one.
        number: in its name.
        frames: how many there are.
        frame_start: frame of the Blender scene that shows the first one.
        space: colour space of the files, by Blender's or OpenColorIO's name.
    """

    first: Path
    number: int
    frames: int
    frame_start: int
    space: str


def add_passes_node(blender_scene: Any, shot: str, label: str, passes: Sequence, take: Sequence | None) -> Any:
    """Bring a shot's group up to date, and put its node into the compositor, if it is not there; returns the node.

    Args:
        blender_scene: whose compositor gets the node.
        shot: key of the shot.
        label: of the shot.
        passes: images with colour, premultiplied, and alpha.
        take: a take of the same frames, which shows where the passes are transparent; None without one.
    """
    group = _group_of(shot, label)
    _fill(group, passes, take)
    tree = compositing_tree(blender_scene)
    node = next((one for one in tree.nodes if getattr(one, "node_tree", None) == group), None)
    if node is None:
        node = tree.nodes.new("CompositorNodeGroup")
        node.node_tree = group
        node.location = (0.0, _HEIGHT + max((one.location.y for one in tree.nodes if one != node), default=0.0))
        node.width = 200.0
    node.name = node.label = group.name
    return node


def compositing_tree(blender_scene: Any) -> Any:
    """The compositor's node tree of a Blender scene; a new one passes the render on, as without a compositor."""
    if not hasattr(blender_scene, "compositing_node_group"):  # before Blender 5.0
        if blender_scene.node_tree is None:
            blender_scene.use_nodes = True
        return blender_scene.node_tree
    tree = blender_scene.compositing_node_group
    if tree is None:
        tree = bpy.data.node_groups.new("Compositing Nodes", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        render, output = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
        render.scene, output.location.x = blender_scene, 400.0
        tree.links.new(render.outputs["Image"], output.inputs["Image"])
        blender_scene.compositing_node_group = tree
    return tree


def _group_of(shot: str, label: str) -> Any:
    for group in bpy.data.node_groups:
        if group.library is None and group.bl_idname == "CompositorNodeTree" and group.get(SHOT_KEY) == shot:
            return group
    group = bpy.data.node_groups.new(f"EX-4D {label}", "CompositorNodeTree")
    group[SHOT_KEY] = shot
    return group


def _fill(group: Any, passes: Sequence, take: Sequence | None) -> None:
    """Make the group's own nodes, as far as they are missing, and have them read the files."""
    image = _node(group, _PASSES, "CompositorNodeImage", (0.0, 0.0))
    _read(image, passes)
    output = _node(group, _OUTPUT, "NodeGroupOutput", (700.0, 0.0))
    over = _node(group, _OVER, "CompositorNodeAlphaOver", (400.0, 120.0))
    below, above = [one for one in over.inputs if one.type == "RGBA"][:2]
    below.default_value = (0.0, 0.0, 0.0, 0.0)
    # Made at once, and in this order: the node shows them as they are declared.
    sockets = {"Image": ("RGBA", over.outputs[0])}
    named = {socket.name: socket for socket in image.outputs}
    for name, title in {**_LAYERS, **_MOTION}.items():
        if name in named:
            sockets[title] = (named[name].type, named[name])
    if take is not None:
        below_node = _node(group, _TAKE, "CompositorNodeImage", (0.0, 420.0))
        _read(below_node, take)
        _connect(group, below_node.outputs[0], below)
        sockets["Take"] = ("RGBA", below_node.outputs[0])
    elif (below_node := group.nodes.get(_TAKE)) is not None:
        group.nodes.remove(below_node)  # an older take does not belong under these passes
    _connect(group, named.get("Combined", image.outputs[0]), above)
    declared = {item.name: item for item in group.interface.items_tree if getattr(item, "in_out", "") == "OUTPUT"}
    for title, (kind, source) in sockets.items():
        if title not in declared:
            group.interface.new_socket(title, in_out="OUTPUT", socket_type=_SOCKETS[kind])
        _connect(group, source, output.inputs[title])


def _node(group: Any, name: str, kind: str, location: tuple[float, float]) -> Any:
    node = group.nodes.get(name)
    if node is None or node.bl_idname != kind:
        node = group.nodes.new(kind)
        node.name, node.location = name, location
    return node


def _connect(group: Any, source: Any, target: Any) -> None:
    """Lead a socket to another, unless the artist has led something there.

    Another kind of file gives an image node other sockets; links of those that it no longer has stay, without effect.
    """
    if not any(link.from_socket.enabled for link in target.links):
        group.links.new(source, target)


def _read(node: Any, sequence: Sequence) -> None:
    path = to_blend(sequence.first)
    image = next((one for one in bpy.data.images if one.filepath == path and one.source == "SEQUENCE"), None)
    if image is None:
        image = bpy.data.images.load(path)
        image.source = "SEQUENCE"
    image.colorspace_settings.name = blenders_name(sequence.space)
    node.image = image
    node.frame_start, node.frame_duration = sequence.frame_start, sequence.frames
    node.frame_offset = sequence.number - 1
