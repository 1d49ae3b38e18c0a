"""Operators on scenes: import a scene, and match footage to the view transform."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.scene_manifest import MANIFEST

from ..blender_types import BlenderScene, Context, ImportHelper, Menu, Operator, classes, ops
from ..errors import reports_errors
from ..jobs.records import own_scenes
from ..sequencer.strip_api import all_strips_in
from ..sequencer.strips import TAKE_KEY
from .color_space import shows_as_filmed, tag_as_filmed
from .enclosing import enclosing_objects
from .importing import ImportSettings, import_scene
from .link import NeedsScene, chosen_scene_object, images_of, link_of, scene_objects
from .viewports import look_through_camera, show_footage


class EX4D_OT_import_scene(ImportHelper, Operator):
    """Import reconstructed footage as an animated mesh, with the camera that filmed it."""

    bl_idname = "ex4d.import_scene"
    bl_label = "Import EX-4D Scene"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(default=MANIFEST, options={"HIDDEN"})
    use_scene_start: bpy.props.BoolProperty(
        name="At Scene Start", description="Start the footage at the scene's start frame", default=True
    )
    frame_start: bpy.props.IntProperty(
        name="Start Frame", description="Frame that shows the first frame of the footage", default=1
    )
    set_up: bpy.props.EnumProperty(
        name="Set Up Scene",
        description="Take frame range, frame rate, resolution and active camera from the footage",
        items=(
            ("AUTO", "New File", "Only in a new, empty file; in others the Scene panel lists what differs"),
            ("YES", "Always", "Set up the Blender scene"),
            ("NO", "Never", "Leave the Blender scene as it is"),
        ),
        default="AUTO",
    )
    standard_view: bpy.props.BoolProperty(
        name="Standard View",
        description="Also set the view transform to Standard, and Solid view to show textures without lights, so that "
        "footage looks as filmed",
        default=True,
    )

    def draw(self, context: Context) -> None:
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
    def execute(self, context: Context) -> set[str]:
        chosen = Path(self.filepath)
        settings = ImportSettings(
            frame_start=None if self.use_scene_start else self.frame_start,
            set_up_scene={"AUTO": None, "YES": True, "NO": False}[self.set_up],
            standard_view=self.standard_view,
        )
        if context.mode != "OBJECT" and ops.object.mode_set.poll():
            ops.object.mode_set(mode="OBJECT")  # or the edited object would stay in Edit Mode, no longer active
        import_scene(chosen.parent if chosen.name == MANIFEST else chosen, settings)
        return {"FINISHED"}


class EX4D_OT_hide_enclosing(NeedsScene, Operator):
    """Hide the objects that enclose the source camera, which sees them instead of the footage."""

    bl_idname = "ex4d.hide_enclosing"
    bl_label = "Hide Enclosing Objects"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        for one in enclosing_objects(context, chosen_scene_object(context)):
            one.hide_set(True)
        return {"FINISHED"}


class EX4D_OT_show_hidden(NeedsScene, Operator):
    """Show the object that was hidden at import because it encloses the source camera."""

    bl_idname = "ex4d.show_hidden"
    bl_label = "Show Hidden Object"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        link = link_of(chosen_scene_object(context))
        if link.hidden_object is not None and link.hidden_object.name in context.view_layer.objects:
            link.hidden_object.hide_set(False)
        link.hidden_object = None
        return {"FINISHED"}


class EX4D_OT_look_through_source(NeedsScene, Operator):
    """Look through the source camera at the footage, in all viewports of this window."""

    bl_idname = "ex4d.look_through_source"
    bl_label = "Look Through Source Camera"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        camera = link_of(scene_object).source_camera
        if camera is None or camera.name not in context.scene.objects:
            self.report({"ERROR"}, "The source camera is not in this Blender scene; import the scene again")
            return {"CANCELLED"}
        context.scene.camera = camera
        for area in context.screen.areas if context.screen is not None else ():
            if isinstance(area.spaces.active, bpy.types.SpaceView3D):
                show_footage(area.spaces.active)
                look_through_camera(area.spaces.active)
        return {"FINISHED"}


class EX4D_OT_match_view(Operator):
    """Set the color space of footage and takes to look as filmed under the current view transform."""

    bl_idname = "ex4d.match_view"
    bl_label = "Match View Transform"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not scene_objects():
            cls.poll_message_set(iface_("No EX-4D scene in this Blender scene; import one"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        for imported in scene_objects():
            for image in images_of(imported):
                tag_as_filmed(context.scene, image)
        for scene in own_scenes():
            for strip in all_strips_in(scene.sequence_editor) if scene.sequence_editor else ():
                if TAKE_KEY in strip:
                    tag_as_filmed(scene, strip)
        return {"FINISHED"}


def is_matched(scene_object: bpy.types.Object, blender_scene: BlenderScene) -> bool:
    """Whether a scene's footage looks as filmed under the current view transform."""
    images = images_of(scene_object)
    return all(shows_as_filmed(blender_scene, image) for image in images)


def _menu_entry(menu: Menu, context: Context) -> None:
    menu.layout.operator(EX4D_OT_import_scene.bl_idname, text="EX-4D Scene (manifest.json)")


CLASSES = (
    EX4D_OT_import_scene,
    EX4D_OT_hide_enclosing,
    EX4D_OT_show_hidden,
    EX4D_OT_look_through_source,
    EX4D_OT_match_view,
)


def register() -> None:
    """Add the File > Import entry."""
    classes.TOPBAR_MT_file_import.append(_menu_entry)


def unregister() -> None:
    """Remove the File > Import entry."""
    classes.TOPBAR_MT_file_import.remove(_menu_entry)
