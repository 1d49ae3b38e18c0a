"""A gray node in materials that stands in for footage whose file is missing, so that renders show no magenta.

Cycles and EEVEE show a missing image in magenta, the default colour of areas that the footage did not see. The node
takes over the links of the Image Texture, which stays as it is, and gives them back when the file is there again. So
materials that an artist has changed, and those of earlier versions, work too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

from ..paths import from_blend

# Of a mesh whose footage is missing, which must not look like areas that the footage did not see.
MISSING_COLOR = (0.12, 0.12, 0.12, 1.0)
# The custom property, kept in .blend files, by which a node is known as a stand-in: the name of its Image Texture.
_STANDS_FOR = "ex4d_stands_for"


def is_outdated(scene_object: bpy.types.Object) -> bool:
    """Whether footage has gone or returned since `update_stand_ins`."""
    return any((stand_in is None) == _is_missing(texture) for _, texture, stand_in in _textures(scene_object))


def update_stand_ins(scene_object: bpy.types.Object) -> None:
    """Put gray nodes into a scene's materials where the footage is missing, and remove them where it is there."""
    for tree, texture, stand_in in list(_textures(scene_object)):
        if _is_missing(texture):
            stand_in = stand_in or _add_stand_in(tree, texture)
            _move_links(tree, texture.outputs["Color"], stand_in.outputs["Color"])
        elif stand_in is not None:
            _move_links(tree, stand_in.outputs["Color"], texture.outputs["Color"])
            tree.nodes.remove(stand_in)
            texture.image.reload()  # Blender remembers that it could not be read


def _textures(scene_object: bpy.types.Object) -> Iterator[tuple[bpy.types.NodeTree, Any, Any]]:
    """The Image Textures that show footage in a scene's materials: each with its tree, and its stand-in or None."""
    for slot in scene_object.material_slots:
        tree = slot.material.node_tree if slot.material else None
        if tree is None:
            continue
        stand_ins = {one[_STANDS_FOR]: one for one in tree.nodes if _STANDS_FOR in one}
        for node in tree.nodes:
            if isinstance(node, bpy.types.ShaderNodeTexImage) and node.image and node.image.source == "MOVIE":
                yield tree, node, stand_ins.get(node.name)


def _is_missing(texture: Any) -> bool:
    return not from_blend(texture.image.filepath, texture.image.library).is_file()


def _add_stand_in(tree: bpy.types.NodeTree, texture: Any) -> Any:
    node: Any = tree.nodes.new("ShaderNodeRGB")
    node.location = (texture.location.x, texture.location.y + 220)
    node.name = node.label = "Missing Footage"
    node.outputs["Color"].default_value = MISSING_COLOR
    node[_STANDS_FOR] = texture.name
    return node


def _move_links(tree: bpy.types.NodeTree, source: Any, target: Any) -> None:
    for end in [link.to_socket for link in source.links]:
        tree.links.new(target, end)  # replaces the link that the end has
