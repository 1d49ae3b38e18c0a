"""What ties an object in a .blend to the scene package it shows: its folder and its digest."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ex4d_core.scene import Scene, SceneError

from ..paths import PATH_OPTIONS, from_blend, to_blend

MESH_CACHE = "EX-4D Positions"
# Why an operator that needs a scene is greyed out.
NO_SCENE = mark_("Select an imported EX-4D scene, or import one first")
# Of the node, in a scene's materials, that emits the colour of what the footage did not see.
UNSEEN_NODE = "Unseen Colour"
DEFAULT_UNSEEN_COLOR = (1.0, 0.0, 1.0)


def _show_unseen_color(link: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    for slot in link.id_data.material_slots:
        node = slot.material.node_tree.nodes.get(UNSEEN_NODE) if slot.material and slot.material.node_tree else None
        if node is not None:
            node.inputs["Color"].default_value = (*link.unseen_color, 1.0)
            slot.material.diffuse_color = (*link.unseen_color, 1.0)


class EX4D_SceneLink(bpy.types.PropertyGroup):
    """On every object (``Object.ex4d_scene``); filled on imported scenes, where ``digest`` is not empty."""

    folder: bpy.props.StringProperty(
        name="Scene Folder",
        description="The scene package that this object shows",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )
    digest: bpy.props.StringProperty(
        name="Digest", description="SHA-256 of the package's manifest; its name on the wire"
    )
    frame_start: bpy.props.IntProperty(
        name="First Frame", description="The frame at which the footage's first frame shows", default=1
    )
    frames: bpy.props.IntProperty(name="Frames", description="Frames of footage")
    source_camera: bpy.props.PointerProperty(
        name="Source Camera", description="The camera that filmed the footage", type=bpy.types.Object
    )
    unseen_color: bpy.props.FloatVectorProperty(
        name="Unseen",
        description="The colour in which the viewport shows what the footage did not see",
        subtype="COLOR",
        size=3,
        min=0.0,
        max=1.0,
        default=DEFAULT_UNSEEN_COLOR,
        update=_show_unseen_color,
    )


CLASSES = (EX4D_SceneLink,)


def link_of(candidate: bpy.types.Object) -> EX4D_SceneLink:
    """An object's scene link; its ``digest`` is empty unless the object is an imported scene."""
    return candidate.ex4d_scene  # pyright: ignore[reportAttributeAccessIssue] - registered below


def is_scene_object(candidate: bpy.types.Object | None) -> bool:
    """Whether this object is an imported scene."""
    return candidate is not None and bool(link_of(candidate).digest)


def scene_objects() -> list[bpy.types.Object]:
    """The imported scenes in the current Blender scene."""
    return [candidate for candidate in bpy.context.scene.objects if is_scene_object(candidate)]


def active_scene_object(context: bpy.types.Context) -> bpy.types.Object | None:
    """The imported scene that the artist means: the active object, its parent's, or the only one there is."""
    # Not ``context.object``, which a timer's context may lack.
    active = context.view_layer.objects.active
    for candidate in (active, active.parent if active else None):
        if is_scene_object(candidate):
            return candidate
    everything = scene_objects()
    return everything[0] if len(everything) == 1 else None


def collection_for(scene_object: bpy.types.Object) -> bpy.types.Collection:
    """Where to put what goes with an imported scene: beside it, or else, where that is linked, in the Blender scene."""
    main = bpy.context.scene.collection
    here = {main, *main.children_recursive}
    for collection in scene_object.users_collection:
        if collection in here and collection.library is None and collection.override_library is None:
            return collection
    return main


class NeedsScene:
    """For operators: they say what is missing while it is not clear which imported scene is meant."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if active_scene_object(context) is None:
            cls.poll_message_set(iface_(NO_SCENE))
            return False
        return True


def link_scene(target: bpy.types.Object, scene: Scene, folder: Path, frame_start: int) -> None:
    """Note on an object which package it shows."""
    link = link_of(target)
    link.folder = to_blend(folder)
    link.digest = scene.digest
    link.frame_start = frame_start
    link.frames = scene.manifest.frames


def open_scene(scene_object: bpy.types.Object) -> Scene:
    """Open the package behind an imported scene, wherever its object's names and links went.

    The folder that holds the object's mesh cache is tried too, since Blender and artists move that path along.

    Raises:
        SceneError: the object is no imported scene, or its package is gone or is another one now.
    """
    if not is_scene_object(scene_object):
        name = scene_object.name if scene_object else "nothing"
        raise SceneError(f"{name!r} is not an imported EX-4D scene; choose one, or import it first")
    link = link_of(scene_object)
    folders = [from_blend(link.folder, scene_object.library)]
    cache = scene_object.modifiers.get(MESH_CACHE)
    if cache is not None:
        folders.append(from_blend(cache.filepath, scene_object.library).parent)
    problem: SceneError | None = None
    for folder in folders:
        try:
            scene = Scene.open(folder)
        except SceneError as error:
            problem = problem or error
            continue
        if scene.digest == link.digest:
            return scene
        problem = SceneError(f"the scene in {folder} has changed since {scene_object.name!r} was imported; import it")
    raise problem


def register() -> None:
    bpy.types.Object.ex4d_scene = bpy.props.PointerProperty(type=EX4D_SceneLink)


def unregister() -> None:
    del bpy.types.Object.ex4d_scene
