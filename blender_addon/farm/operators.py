"""*Send to Farm*: writes the scene's shots for a render farm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt as report_

from ex4d_core.durable_files import make_folder
from ex4d_core.shot import EngineName

from ..blender_types import Context, Operator
from ..connection.panel import DIALOG_WIDTH
from ..errors import reports_errors
from ..paths import from_blend
from ..projects.asking import AsksForProjectFolder, must_ask
from ..projects.folders import project_folder, work_folder
from ..scenes.link import link_of
from ..shots.final_settings import FINAL_ENGINE, settings_of_takes
from ..shots.objects import NeedsShot, shot_objects
from ..shots.properties import active_shot
from ..takes.requests import file_stem
from ..takes.shot_requests import request_of_shot
from .shots_file import FarmShot, ranges, write_shots


class EX4D_OT_send_to_farm(AsksForProjectFolder, NeedsShot, Operator):
    """Write all shots for a render farm, where "ex4d batch" makes them; see the manual for farms that are known."""

    bl_idname = "ex4d.send_to_farm"
    bl_label = "Send to Farm"
    bl_options = {"UNDO"}

    engine: bpy.props.EnumProperty(
        name="Takes",
        description="What is made of each shot",
        items=(
            ("preview", "Preview", "Render the shot, and fill what the footage does not show"),
            (FINAL_ENGINE, "Final", "Generate the shot, with areas that the footage does not show"),
        ),
    )
    frames_per_task: bpy.props.IntProperty(
        name="Frames per Task",
        description="Cut previews into ranges of so many frames, a task and a take each; 0 for whole shots",
        min=0,
    )

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        if must_ask():
            self.project_folder = str(project_folder())
        return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text=self.bl_label)

    def draw(self, context: Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "engine")
        column = self.layout.column()
        column.active = self.engine == "preview"
        column.prop(self, "frames_per_task")
        if self.project_folder:
            super().draw(context)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        self.use_project_folder()
        shots = self._shots(context)
        file = write_shots(_new_folder(), shots)
        farm = context.scene.ex4d_farm
        farm.file, farm.shots = str(file), ",".join(shot.name for shot in shots)
        self.report({"INFO"}, report_("{shots} shots are in {file}").format(shots=len(shots), file=file))
        return {"FINISHED"}

    def _shots(self, context: Context) -> list[FarmShot]:
        """All shots of the list, or the one that is not listed."""
        scene, found = context.scene, dict[str, FarmShot]()
        chosen, camera = scene.ex4d_shot_index, scene.camera
        try:
            for index in range(max(len(scene.ex4d_shots), 1)):
                scene.ex4d_shot_index = index
                scene.camera = camera  # a shot that becomes active sets its own, but others follow the artist's
                for one in self._takes_of_active(context):
                    name, number = one.name, 1
                    while name in found:  # two shots may have the same label
                        number += 1
                        name = f"{one.name}_{number}"
                    found[name] = replace(one, name=name)
        finally:
            scene.ex4d_shot_index = chosen
            scene.camera = camera
        return list(found.values())

    def _takes_of_active(self, context: Context) -> list[FarmShot]:
        engine: EngineName = FINAL_ENGINE if self.engine == FINAL_ENGINE else "preview"
        shot = active_shot(context.scene)
        scene, request, frame_start = request_of_shot(context, engine)
        scene_object, _ = shot_objects(context)
        package = from_blend(link_of(scene_object).folder)
        name = file_stem(shot.label)
        if engine == "preview":
            parts = ranges(name, request, frame_start, self.frames_per_task)
            return [FarmShot(part, package, scene, one) for part, one in parts]
        variants = settings_of_takes(shot.final)
        names = [name] if len(variants) == 1 else [f"{name}_seed_{wan.seed}" for wan in variants]
        requests = [replace(request, wan=wan) for wan in variants]
        return [FarmShot(name, package, scene, one) for name, one in zip(names, requests, strict=True)]


def _new_folder() -> Path:
    stem = file_stem(bpy.path.display_name_from_filepath(bpy.data.filepath) if bpy.data.filepath else "shots")
    parent, number = work_folder() / "farm", 1
    while (folder := parent / f"{stem}_{number}").exists():
        number += 1
    make_folder(folder)
    return folder


CLASSES = (EX4D_OT_send_to_farm,)
