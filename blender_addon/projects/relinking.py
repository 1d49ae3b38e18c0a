"""Links an imported scene to its folder again after that was moved outside of Blender."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_

from ex4d_core.mesh_cache import positions_file
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import MANIFEST, SceneError

from ..blender_types import Context, ImportHelper, Operator
from ..errors import reports_errors
from ..paths import to_blend
from ..scenes.link import MESH_CACHE, NeedsScene, active_scene_object, chosen_scene_object, folders_of, link_of
from ..scenes.missing import missing_scenes, reload_footage
from .contents import rebase


class EX4D_OT_relink_scene(NeedsScene, ImportHelper, Operator):
    """Choose where the folder of this scene is now: its manifest.json."""

    bl_idname = "ex4d.relink_scene"
    bl_label = "Relink Scene"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(default=MANIFEST, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not super().poll(context):
            return False
        scene_object = active_scene_object(context)
        if scene_object is not None and scene_object.library is not None:
            cls.poll_message_set(iface_("This scene is linked from another file; relink it there"))
            return False
        return True

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        chosen = Path(bpy.path.abspath(self.filepath))
        scene_object = chosen_scene_object(context)
        relink_scene(scene_object, chosen.parent if chosen.name == MANIFEST else chosen)
        self.report({"INFO"}, report_("Relinked {name}").format(name=scene_object.name))
        return {"FINISHED"}


def relink_scene(scene_object: bpy.types.Object, folder: Path) -> None:
    """Let everything in the open file that shows a scene's package show the one in another folder.

    Raises:
        SceneError: there is no package, or that of another scene; nothing is changed then.
    """
    scene = Scene.open(folder)
    if scene.digest != link_of(scene_object).digest:
        raise SceneError(
            f"{folder} holds another scene, {scene.manifest.name!r}; choose the folder that {scene_object.name!r} was "
            "imported from, or import that scene"
        )
    positions = positions_file(scene)
    for old in dict.fromkeys(folders_of(scene_object)):
        rebase(old, folder)
    link_of(scene_object).folder = to_blend(folder)
    cache = scene_object.modifiers.get(MESH_CACHE)
    if isinstance(cache, bpy.types.MeshCacheModifier):
        cache.filepath = to_blend(positions)
    missing_scenes.look()
    reload_footage()


CLASSES = (EX4D_OT_relink_scene,)
