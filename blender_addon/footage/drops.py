"""What can be dropped into 3D viewports: footage, depth, cameras and scenes, each as files.

Blender's file handlers are asked for files, never for folders: a scene folder is dropped as its manifest.json, a COLMAP
model as any of its files, an image sequence as any or all of its images. Where a file may be several of these, as an
EXR may be footage and depth, Blender asks. Images and cameras are taken only while the sidebar shows the add-on's tab,
so that Blender's own drops of images work as ever.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from ex4d_core.scene_manifest import MANIFEST
from ex4d_core.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

from ..blender_types import Context, ImportHelper, Operator, SidebarPanel, ops
from ..connection.sidebar import open_tab
from ..errors import reports_errors
from ..paths import to_blend
from .operators import EX4D_OT_pick_depth, EX4D_OT_pick_footage
from .sources import require_camera_files

_LAYOUTS = (".exr", ".png")


class EX4D_OT_pick_camera(ImportHelper, Operator):
    """Choose the camera of moving footage: transforms.json, an .npz, or any file of a COLMAP model."""

    bl_idname = "ex4d.pick_camera"
    bl_label = "Use as EX-4D Camera"
    bl_options = {"UNDO"}

    filter_glob: bpy.props.StringProperty(default="*.json;*.npz;*.bin;*.txt", options={"HIDDEN"})

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        path = Path(bpy.path.abspath(self.filepath))
        require_camera_files(path)
        settings = context.scene.ex4d_footage
        settings.camera_from, settings.camera = "FILE", to_blend(path)
        return {"FINISHED"}


class EX4D_OT_drop_file(Operator):
    """Import a scene from its manifest.json, or take the footage's camera from another file."""

    bl_idname = "ex4d.drop_file"
    bl_label = "Use in EX-4D"
    bl_options = {"UNDO"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        open_tab(context)
        if Path(self.filepath).name == MANIFEST:
            return ops.ex4d.import_scene(filepath=self.filepath)
        return ops.ex4d.pick_camera(filepath=self.filepath)


def is_viewport(context: Context) -> bool:
    """Whether something is about to be dropped onto a 3D viewport."""
    return context.area is not None and context.area.type == "VIEW_3D"


def shows_tab(context: Context) -> bool:
    """Whether it is one whose sidebar shows the add-on's tab."""
    if not is_viewport(context) or not context.space_data.show_region_ui:
        return False
    sidebar = next((region for region in context.area.regions if region.type == "UI"), None)
    return getattr(sidebar, "active_panel_category", "") == SidebarPanel.bl_category


class _OnViewport:
    """Takes what is dropped onto a 3D viewport."""

    @classmethod
    def poll_drop(cls, context: Context) -> bool:
        return is_viewport(context)


class _OnTab:
    """Takes what is dropped onto a 3D viewport whose sidebar shows the add-on's tab."""

    @classmethod
    def poll_drop(cls, context: Context) -> bool:
        return shows_tab(context)


class EX4D_FH_footage(_OnViewport, bpy.types.FileHandler):
    """Takes dropped videos as footage."""

    bl_idname = "EX4D_FH_footage"
    bl_label = "EX-4D Footage"
    bl_import_operator = EX4D_OT_pick_footage.bl_idname
    bl_file_extensions = ";".join(VIDEO_SUFFIXES)


class EX4D_FH_images(_OnTab, bpy.types.FileHandler):
    """Takes dropped images as footage."""

    bl_idname = "EX4D_FH_images"
    bl_label = "EX-4D Footage"
    bl_import_operator = EX4D_OT_pick_footage.bl_idname
    bl_file_extensions = ";".join(IMAGE_SUFFIXES)


class EX4D_FH_depth(_OnViewport, bpy.types.FileHandler):
    """Takes dropped arrays as depth."""

    bl_idname = "EX4D_FH_depth"
    bl_label = "EX-4D Depth"
    bl_import_operator = EX4D_OT_pick_depth.bl_idname
    bl_file_extensions = ".npz;.npy"


class EX4D_FH_depth_images(_OnTab, bpy.types.FileHandler):
    """Takes dropped images as depth."""

    bl_idname = "EX4D_FH_depth_images"
    bl_label = "EX-4D Depth"
    bl_import_operator = EX4D_OT_pick_depth.bl_idname
    bl_file_extensions = ";".join(_LAYOUTS)


class EX4D_FH_scene(_OnViewport, bpy.types.FileHandler):
    """Imports the scene of a dropped manifest.json, and takes a transforms.json as camera."""

    bl_idname = "EX4D_FH_scene"
    bl_label = "EX-4D Scene or Camera"
    bl_import_operator = EX4D_OT_drop_file.bl_idname
    bl_file_extensions = ".json"


class EX4D_FH_camera(_OnTab, bpy.types.FileHandler):
    """Takes a dropped file of a COLMAP model as camera."""

    bl_idname = "EX4D_FH_camera"
    bl_label = "EX-4D Camera"
    bl_import_operator = EX4D_OT_drop_file.bl_idname
    bl_file_extensions = ".bin;.txt"


CLASSES = (
    EX4D_OT_pick_camera,
    EX4D_OT_drop_file,
    EX4D_FH_footage,
    EX4D_FH_images,
    EX4D_FH_depth,
    EX4D_FH_depth_images,
    EX4D_FH_scene,
    EX4D_FH_camera,
)
