"""Operators on footage: pick it, take it from the file, reconstruct it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_
from bpy_extras.io_utils import ImportHelper

from ex4d_core.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

from ..connection.sidebar import open_tab
from ..errors import reports_errors
from ..jobs.operators import CancelsJob, ForgetsJob, ResumesJob
from ..paths import to_blend
from ..projects.asking import AsksForProjectFolder
from .properties import RECONSTRUCTIONS
from .scene_jobs import start_reconstruction
from .sources import plan_of
from .weights import weights

_DEPTH_SUFFIXES = (".npz", ".npy", ".exr", ".png")


class EX4D_OT_pick_footage(bpy.types.Operator, ImportHelper):
    """Choose a video to reconstruct, or any image of a sequence; both can also be dropped into the 3D viewport."""

    bl_idname = "ex4d.pick_footage"
    bl_label = "Use as EX-4D Footage"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    filter_glob: bpy.props.StringProperty(
        default=";".join(f"*{suffix}" for suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)), options={"HIDDEN"}
    )
    # With these, several images can be dropped at once; the first stands for all.
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            return ImportHelper.invoke(self, context, event)
        # A dropped file comes with its path; what to do with it is in the tab.
        open_tab(context)
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        path = Path(bpy.path.abspath(self.filepath))
        if path.suffix.lower() in IMAGE_SUFFIXES:
            path = path.parent  # one image stands for the whole sequence
        if not path.is_file() and not path.is_dir():
            self.report({"ERROR"}, report_("{path} does not exist; choose a video").format(path=path))
            return {"CANCELLED"}
        choose_footage(context.scene, path)
        return {"FINISHED"}


class EX4D_OT_pick_depth(bpy.types.Operator, ImportHelper):
    """Choose the footage's depth: an .npz or .npy, or any file of an EXR or PNG sequence."""

    bl_idname = "ex4d.pick_depth"
    bl_label = "Use as EX-4D Depth"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    filter_glob: bpy.props.StringProperty(
        default=";".join(f"*{suffix}" for suffix in _DEPTH_SUFFIXES), options={"HIDDEN"}
    )
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            return ImportHelper.invoke(self, context, event)
        open_tab(context)
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.ex4d_footage
        settings.depth_from, settings.depth = "FILES", to_blend(bpy.path.abspath(self.filepath))
        return {"FINISHED"}


class EX4D_OT_use_movie_strip(bpy.types.Operator):
    """Use the file of the sequencer's active movie strip as footage; trimming of the strip is ignored."""

    bl_idname = "ex4d.use_movie_strip"
    bl_label = "Use Active Movie Strip"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if _movie_strip(context) is None:
            cls.poll_message_set(iface_("Select a movie strip in the Video Sequencer first"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        if (strip := _movie_strip(context)) is not None:
            choose_footage(context.scene, Path(bpy.path.abspath(strip.filepath)))
        return {"FINISHED"}


class EX4D_OT_reconstruct(AsksForProjectFolder, bpy.types.Operator):
    """Send footage and depth to the backend, and import the reconstructed scene."""

    bl_idname = "ex4d.reconstruct"
    bl_label = "Reconstruct"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        settings = context.scene.ex4d_footage
        if not settings.footage:
            cls.poll_message_set(iface_("Choose the footage first"))
            return False
        if settings.depth_from == "FILES" and not settings.depth:
            cls.poll_message_set(iface_("Choose the depth files first"))
            return False
        return True

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        self.use_project_folder()
        start_reconstruction(plan_of(context.scene.ex4d_footage, context.scene), context.scene)
        return {"FINISHED"}


class EX4D_OT_fetch_weights(bpy.types.Operator):
    """Download the weights of this estimator on the backend; an interrupted download resumes."""

    bl_idname = "ex4d.fetch_weights"
    bl_label = "Fetch on Backend"

    part: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        weights.fetch(self.part)
        return {"FINISHED"}


class EX4D_OT_cancel_weights(bpy.types.Operator):
    """Stop this download; what has arrived stays for the next try."""

    bl_idname = "ex4d.cancel_weights"
    bl_label = "Cancel Download"

    part: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        weights.cancel(self.part)
        return {"FINISHED"}


class EX4D_OT_cancel_reconstruction(CancelsJob, bpy.types.Operator):
    """Stop sending or reconstructing this scene."""

    bl_idname = "ex4d.cancel_reconstruction"
    bl_label = "Cancel Reconstruction"
    collection = RECONSTRUCTIONS


class EX4D_OT_resume_reconstruction(ResumesJob, bpy.types.Operator):
    """Try again to send the footage, or to fetch the scene."""

    bl_idname = "ex4d.resume_reconstruction"
    bl_label = "Resume Reconstruction"
    collection = RECONSTRUCTIONS


class EX4D_OT_forget_reconstruction(ForgetsJob, bpy.types.Operator):
    """Remove this from the list; the imported scene stays."""

    bl_idname = "ex4d.forget_reconstruction"
    bl_label = "Remove From List"
    collection = RECONSTRUCTIONS


CLASSES = (
    EX4D_OT_pick_footage,
    EX4D_OT_pick_depth,
    EX4D_OT_use_movie_strip,
    EX4D_OT_reconstruct,
    EX4D_OT_fetch_weights,
    EX4D_OT_cancel_weights,
    EX4D_OT_cancel_reconstruction,
    EX4D_OT_resume_reconstruction,
    EX4D_OT_forget_reconstruction,
)


def choose_footage(scene: bpy.types.Scene, path: Path) -> None:
    """Set the footage to reconstruct next, and with it its depth if that lies beside it."""
    scene.ex4d_footage.footage = to_blend(path)


def _movie_strip(context: bpy.types.Context) -> bpy.types.Strip | None:
    editor = context.scene.sequence_editor
    strip = editor.active_strip if editor is not None else None
    return strip if strip is not None and strip.type == "MOVIE" else None
