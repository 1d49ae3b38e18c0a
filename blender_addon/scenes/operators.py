"""Operators on scenes: import, and keep footage looking as filmed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy_extras.io_utils import ImportHelper

from ex4d_core.scene import MANIFEST

from ..errors import reports_errors
from ..sequencer.strips import TAKE_KEY, strips_of
from .color_space import shows_as_finished, tag_as_finished
from .importing import ImportSettings, import_scene
from .link import scene_objects


class EX4D_OT_import_scene(bpy.types.Operator, ImportHelper):
    bl_idname = "ex4d.import_scene"
    bl_label = "Import EX-4D Scene"
    bl_description = "Bring reconstructed footage in as an animated mesh, with the camera that filmed it"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(default=MANIFEST, options={"HIDDEN"})
    use_scene_start: bpy.props.BoolProperty(
        name="At Scene Start", description="Show the footage's first frame at the scene's first frame", default=True
    )
    frame_start: bpy.props.IntProperty(
        name="First Frame", description="The frame at which the footage's first frame shows", default=1
    )
    set_up: bpy.props.EnumProperty(
        name="Set Up Scene",
        description="Take frame range, rate, resolution and active camera from the footage",
        items=(
            ("AUTO", "If First", "Only for the first EX-4D scene in this Blender scene"),
            ("YES", "Yes", "Always"),
            ("NO", "No", "Leave the Blender scene as it is"),
        ),
        default="AUTO",
    )
    standard_view: bpy.props.BoolProperty(
        name="Standard View",
        description="Set-up includes the view transform Standard, and Solid view without lights: both show footage as "
        "it was filmed",
        default=True,
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "use_scene_start")
        row = layout.row()
        row.enabled = not self.use_scene_start
        row.prop(self, "frame_start")
        layout.prop(self, "set_up")
        row = layout.row()
        row.enabled = self.set_up != "NO"
        row.prop(self, "standard_view")

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = Path(self.filepath)
        settings = ImportSettings(
            frame_start=None if self.use_scene_start else self.frame_start,
            set_up_scene={"AUTO": None, "YES": True, "NO": False}[self.set_up],
            standard_view=self.standard_view,
        )
        imported = import_scene(chosen.parent if chosen.name == MANIFEST else chosen, settings)
        if context.mode != "OBJECT" and bpy.ops.object.mode_set.poll():
            bpy.ops.object.mode_set(mode="OBJECT")  # what is being edited is no longer active, and would stay open
        for selected in context.selected_objects:
            selected.select_set(False)
        imported.select_set(True)
        context.view_layer.objects.active = imported
        return {"FINISHED"}


class EX4D_OT_match_view(bpy.types.Operator):
    bl_idname = "ex4d.match_view"
    bl_label = "Match View Transform"
    bl_description = "Tag footage and takes anew, so that they look as filmed under the present view transform"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not scene_objects():
            cls.poll_message_set(iface_("There is no EX-4D scene here yet; import one"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        for imported in scene_objects():
            for image in _images_of(imported):
                tag_as_finished(context.scene, image.colorspace_settings)
        if context.scene.sequence_editor is not None:
            for strip in strips_of(context.scene):
                if TAKE_KEY in strip and hasattr(strip, "colorspace_settings"):
                    tag_as_finished(context.scene, strip.colorspace_settings)
        return {"FINISHED"}


def is_matched(scene_object: bpy.types.Object, blender_scene: bpy.types.Scene) -> bool:
    """Whether a scene's footage looks as filmed under the present view transform."""
    images = _images_of(scene_object)
    return all(shows_as_finished(blender_scene, image.colorspace_settings) for image in images)


def _images_of(scene_object: bpy.types.Object) -> list[bpy.types.Image]:
    materials = (slot.material for slot in scene_object.material_slots if slot.material)
    nodes = (node for one in materials if one.node_tree for node in one.node_tree.nodes)
    return [node.image for node in nodes if node.type == "TEX_IMAGE" and node.image]


def _menu_entry(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.operator(EX4D_OT_import_scene.bl_idname, text="EX-4D Scene (manifest.json)")


CLASSES = (EX4D_OT_import_scene, EX4D_OT_match_view)


def register() -> None:
    bpy.types.TOPBAR_MT_file_import.append(_menu_entry)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu_entry)
