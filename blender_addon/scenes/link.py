"""Links an object in a .blend to the scene package that it shows: the package's folder and digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import MANIFEST, SceneError

from ..blender_types import Context, OperatorMixin, current_context
from ..paths import PATH_OPTIONS, from_blend, to_blend

MESH_CACHE = "EX-4D Positions"
# Why an operator that needs a scene is disabled.
NO_SCENE = mark_("Select an imported EX-4D scene, or import one first")
# The name, kept in .blend files, of the node that emits the colour of unseen areas in a scene's materials.
UNSEEN_NODE = "Unseen Colour"
DEFAULT_UNSEEN_COLOR = (1.0, 0.0, 1.0)


def _show_unseen_color(link: Any, _: bpy.types.Context) -> None:
    for material in (slot.material for slot in link.id_data.material_slots):
        node = material.node_tree.nodes.get(UNSEEN_NODE) if material and material.node_tree else None
        if node is not None:
            node.inputs["Color"].default_value = material.diffuse_color = (*link.unseen_color, 1.0)


class EX4D_SceneLink(bpy.types.PropertyGroup):
    """On every object (``Object.ex4d_scene``); filled on imported scenes, where ``digest`` is not empty."""

    folder: bpy.props.StringProperty(
        name="Scene Folder",
        description="Folder of the scene package that this object shows",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )
    digest: bpy.props.StringProperty(name="Digest", description="SHA-256 of the package's manifest")
    frame_start: bpy.props.IntProperty(
        name="Start Frame", description="Frame that shows the first frame of the footage", default=1
    )
    convention: bpy.props.StringProperty(name="Convention", description="Convention of the package's mesh")
    frames: bpy.props.IntProperty(name="Frames", description="Number of frames in the footage")
    source_camera: bpy.props.PointerProperty(
        name="Source Camera", description="Camera that filmed the footage", type=bpy.types.Object
    )
    fps: bpy.props.IntProperty(name="Frame Rate", description="Frame rate of the footage; 0 if unknown", min=0)
    fps_base: bpy.props.FloatProperty(description="What the frame rate is divided by", default=1.0)
    size: bpy.props.IntVectorProperty(name="Size", description="Width and height of the footage", size=2, min=0)
    pixel_aspect: bpy.props.FloatVectorProperty(
        name="Pixel Aspect", description="Shape of the footage's pixels", size=2, default=(1.0, 1.0)
    )
    match: bpy.props.EnumProperty(
        description="Whether the Blender scene was matched to the footage",
        items=(
            ("KEPT", "Kept", "The Blender scene stays as it is"),
            ("ASK", "Ask", "The Scene panel lists the differences"),
            ("DONE", "Done", "The chosen settings were taken from the footage"),
        ),
        default="KEPT",
    )
    hidden_object: bpy.props.PointerProperty(
        name="Hidden Object",
        description="Object that was hidden at import because it encloses the source camera",
        type=bpy.types.Object,
    )
    lens_origin: bpy.props.StringProperty(description="Where the focal length of the source camera came from")
    camera_notes: bpy.props.StringProperty(description="What was found about the source camera when it was solved")
    unseen_color: bpy.props.FloatVectorProperty(
        name="Unseen",
        description="Viewport color of areas that the footage did not see",
        subtype="COLOR",
        size=3,
        min=0.0,
        max=1.0,
        default=DEFAULT_UNSEEN_COLOR,
        update=_show_unseen_color,
    )


CLASSES = (EX4D_SceneLink,)
PROPERTIES = ((bpy.types.Object, "ex4d_scene", bpy.props.PointerProperty(type=EX4D_SceneLink)),)


def link_of(candidate: bpy.types.Object) -> EX4D_SceneLink:
    """An object's scene link; its ``digest`` is empty unless the object is an imported scene."""
    return candidate.ex4d_scene  # pyright: ignore[reportAttributeAccessIssue]


def is_assumed(lens_origin: str) -> bool:
    """Whether a scene's lens was assumed, since nothing stated it; ``lens_origin`` is its `EX4D_SceneLink`'s."""
    return lens_origin.startswith("an assumed field of view")


def is_scene_object(candidate: bpy.types.Object | None) -> TypeGuard[bpy.types.Object]:
    """Whether this object is an imported scene."""
    return candidate is not None and bool(link_of(candidate).digest)


def scene_objects() -> list[bpy.types.Object]:
    """The imported scenes in the current Blender scene."""
    return [candidate for candidate in current_context().scene.objects if is_scene_object(candidate)]


def active_scene_object(context: Context) -> bpy.types.Object | None:
    """The imported scene that the artist means: the active object, its parent, or the only one in the Blender scene."""
    # Not ``context.object``, which a timer's context may lack.
    active = context.view_layer.objects.active
    for candidate in (active, active.parent if active else None):
        if is_scene_object(candidate):
            return candidate
    everything = scene_objects()
    return everything[0] if len(everything) == 1 else None


def chosen_scene_object(context: Context) -> bpy.types.Object:
    """`active_scene_object` for operators that `NeedsScene` has polled.

    Raises:
        SceneError: no scene is selected any more.
    """
    scene_object = active_scene_object(context)
    if scene_object is None:
        raise SceneError("no EX-4D scene is selected; select an imported scene")
    return scene_object


def collection_for(scene_object: bpy.types.Object) -> bpy.types.Collection:
    """The collection for objects that go with an imported scene: its own, or the Blender scene's if that is linked."""
    main = current_context().scene.collection
    here = {main, *main.children_recursive}
    for collection in scene_object.users_collection:
        if collection in here and collection.library is None and collection.override_library is None:
            return collection
    return main


class NeedsScene(OperatorMixin):
    """An operator that is disabled, and says why, while it is not clear which imported scene is meant."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        if active_scene_object(context) is None:
            cls.poll_message_set(iface_(NO_SCENE))
            return False
        return True


def link_scene(target: bpy.types.Object, scene: Scene, folder: Path, frame_start: int) -> None:
    """Store on an object which package it shows."""
    link = link_of(target)
    link.folder = to_blend(folder)
    link.digest = scene.digest
    link.frame_start = frame_start
    link.frames = scene.manifest.frames
    link.lens_origin = scene.manifest.provenance.get("focal length", "")
    link.camera_notes = scene.manifest.provenance.get("source camera notes", "")
    link.convention = scene.manifest.convention


def images_of(scene_object: bpy.types.Object) -> list[bpy.types.Image]:
    """The images in an imported scene's materials: its footage."""
    materials = (slot.material for slot in scene_object.material_slots if slot.material)
    nodes = (node for one in materials if one.node_tree for node in one.node_tree.nodes)
    return [node.image for node in nodes if isinstance(node, bpy.types.ShaderNodeTexImage) and node.image]


def folders_of(scene_object: bpy.types.Object) -> list[Path]:
    """Where an imported scene's package may be: its folder, and that of its mesh cache if it is another."""
    folders = [from_blend(link_of(scene_object).folder, scene_object.library)]
    cache = scene_object.modifiers.get(MESH_CACHE)
    if isinstance(cache, bpy.types.MeshCacheModifier):
        folders.append(from_blend(cache.filepath, scene_object.library).parent)
    return list(dict.fromkeys(folders))


def open_scene(scene_object: bpy.types.Object) -> Scene:
    """Open the package behind an imported scene.

    The folder of the object's mesh cache is tried too, since Blender and artists update that path.

    Raises:
        SceneError: the object is not an imported scene, or its package is missing or has changed.
    """
    if not is_scene_object(scene_object):
        raise SceneError(f"{scene_object.name!r} is not an imported EX-4D scene; select one, or import it first")
    link = link_of(scene_object)
    problems: list[SceneError] = []
    for folder in folders_of(scene_object):
        try:
            scene = Scene.open(folder)
        except SceneError as error:
            problems.append(error)
            continue
        if scene.digest == link.digest:
            return scene
        changed = f"the scene in {folder} has changed since {scene_object.name!r} was imported; import it again"
        problems.insert(0, SceneError(changed))
    if not any((folder / MANIFEST).is_file() for folder in folders_of(scene_object)):
        raise SceneError(
            f"the folder of {scene_object.name!r} is missing: {folders_of(scene_object)[0]}; press Relink Scene in the "
            "Scene panel, or use File > External Data > Find Missing Files"
        )
    raise problems[0]
