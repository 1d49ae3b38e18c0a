"""Operators that give a scene its size and set it on the ground; the points for that are clicked in the viewport."""

from __future__ import annotations

from typing import ClassVar

import bpy
import gpu
import mathutils
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy_extras import view3d_utils
from gpu_extras.batch import batch_for_shader

from ..errors import reports_errors
from .ground import GroundError, Plane, plane_through, upright
from .link import NeedsScene, active_scene_object
from .placement import eye_of, ground_of, move_scene, require_movable, reset_scene, scale_scene

_PICKED_COLOR = (1.0, 0.8, 0.1, 1.0)

# What draws the points that are being picked.
_drawing: list[object] = []


class EX4D_OT_set_scale(NeedsScene, bpy.types.Operator):
    bl_idname = "ex4d.set_scale"
    bl_label = "Set Scene Scale"
    bl_description = "Make the scene as large as it was; its cameras move along, and takes stay what they are"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    method: bpy.props.EnumProperty(
        name="By",
        description="How the size is given",
        items=(
            ("FACTOR", "Factor", "So many times as large as now"),
            ("DISTANCE", "Distance", "Two points in the scene, and how far they are from each other"),
        ),
        default="FACTOR",
    )
    factor: bpy.props.FloatProperty(
        name="Factor", description="How many times as large as now", default=1.0, min=1e-6, soft_max=100.0, precision=4
    )
    measured: bpy.props.FloatProperty(
        name="Now",
        description="How far the two points are from each other now",
        subtype="DISTANCE",
        default=1.0,
        min=1e-9,
    )
    distance: bpy.props.FloatProperty(
        name="Distance",
        description="How far the two points really are from each other",
        subtype="DISTANCE",
        default=1.0,
        min=1e-6,
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        if self.method == "FACTOR":
            layout.prop(self, "factor")
            return
        row = layout.row()
        row.enabled = False
        row.prop(self, "measured")
        layout.prop(self, "distance")

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        factor = self.factor if self.method == "FACTOR" else self.distance / self.measured
        scale_scene(active_scene_object(context), factor)
        return {"FINISHED"}


class EX4D_OT_align_ground(NeedsScene, bpy.types.Operator):
    bl_idname = "ex4d.align_ground"
    bl_label = "Align to Ground"
    bl_description = "Turn the scene upright and set its ground on height 0; its cameras move along"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    method: bpy.props.EnumProperty(
        name="Ground",
        description="Where the ground is",
        items=(
            ("FOOTAGE", "Found in Footage", "The largest even part of what the lower part of this frame shows"),
            ("CURSOR", "3D Cursor", "At the cursor, level with it: Shift + right mouse button sets it on a surface"),
            ("VERTICES", "Selected Vertices", "Three or more vertices of the scene, selected in Edit Mode"),
            ("POINTS", "Three Points", "Three points that were picked"),
        ),
        default="FOOTAGE",
    )
    share: bpy.props.FloatProperty(
        name="Lower Part",
        description="How much of the picture, from below, the ground is looked for in",
        subtype="FACTOR",
        default=0.4,
        min=0.05,
        max=1.0,
    )
    height: bpy.props.FloatProperty(
        name="Height", description="Where the ground comes to lie", subtype="DISTANCE", default=0.0
    )
    points: bpy.props.FloatVectorProperty(
        description="Three points, in the world", size=9, options={"HIDDEN", "SKIP_SAVE"}
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        if self.method != "POINTS":
            layout.prop(self, "method")
        if self.method == "FOOTAGE":
            layout.prop(self, "share")
        layout.prop(self, "height")

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        scene_object = active_scene_object(context)
        require_movable(scene_object)
        matrix = upright(self.ground(context, scene_object), self.height)
        move_scene(scene_object, mathutils.Matrix(matrix.tolist()))
        return {"FINISHED"}

    def ground(self, context: bpy.types.Context, scene_object: bpy.types.Object) -> Plane:
        """Raises:
        GroundError, SceneError: there is none to be had.
        """
        eye = eye_of(scene_object)
        if self.method == "FOOTAGE":
            return ground_of(scene_object, context.scene.frame_current, self.share)
        if self.method == "POINTS":
            return plane_through(np.array(self.points).reshape(3, 3), eye)
        if self.method == "VERTICES":
            return plane_through(_selected_vertices(scene_object), eye)
        cursor = context.scene.cursor.matrix
        return Plane(np.array(cursor.translation, dtype=np.float64), np.array(cursor.col[2][:3], dtype=np.float64))


class EX4D_OT_reset_placement(NeedsScene, bpy.types.Operator):
    bl_idname = "ex4d.reset_placement"
    bl_label = "As Imported"
    bl_description = "Put the scene back to the place and size that it was imported with; its cameras move along"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        reset_scene(active_scene_object(context))
        return {"FINISHED"}


class _PicksPoints(NeedsScene):
    """Waits for clicks on the scene in the viewport; whatever else is pressed does what it always does."""

    count: ClassVar[int]
    hint: ClassVar[str]

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.area is None or context.area.type != "VIEW_3D":
            cls.poll_message_set(iface_("Use this in a 3D viewport"))
            return False
        return super().poll(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.picked: list[mathutils.Vector] = []
        self.area = context.area
        self.drawing = bpy.types.SpaceView3D.draw_handler_add(self.draw_picked, (), "WINDOW", "POST_VIEW")
        _drawing.append(self.drawing)
        context.window_manager.modal_handler_add(self)
        self.tell(context)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        # The scene may be deleted and the viewport closed meanwhile, since all other keys do what they always do.
        gone = not self.area_is_open(context) or active_scene_object(context) is None
        if gone or (event.type in ("ESC", "RIGHTMOUSE") and event.value == "PRESS"):
            self.cancel(context)
            return {"CANCELLED"}
        window = next((one for one in self.area.regions if one.type == "WINDOW"), None)
        inside = window is not None and _is_in(window, self.area, event)
        if event.type != "LEFTMOUSE" or event.value != "PRESS" or not inside:
            return {"PASS_THROUGH"}
        point = self.point_under(context, window, event)
        if point is None:
            self.report({"WARNING"}, "There is no surface of the scene there; click on the scene")
            return {"RUNNING_MODAL"}
        self.picked.append(point)
        self.area.tag_redraw()
        if len(self.picked) < self.count:
            self.tell(context)
            return {"RUNNING_MODAL"}
        self.cancel(context)
        return self.use(context)

    def cancel(self, context: bpy.types.Context) -> None:
        _stop_drawing(self.drawing)
        context.workspace.status_text_set(None)
        if self.area_is_open(context):
            self.area.tag_redraw()

    def area_is_open(self, context: bpy.types.Context) -> bool:
        return any(self.area == area for one in context.window_manager.windows for area in one.screen.areas)

    def tell(self, context: bpy.types.Context) -> None:
        text = iface_("{hint}: click point {number} of {count} on the scene. Esc: cancel")
        hint = iface_(self.hint)
        context.workspace.status_text_set(text.format(hint=hint, number=len(self.picked) + 1, count=self.count))

    def point_under(
        self, context: bpy.types.Context, region: bpy.types.Region, event: bpy.types.Event
    ) -> mathutils.Vector | None:
        """Where the mouse points at the scene object, in Blender's world."""
        at, view = (event.mouse_x - region.x, event.mouse_y - region.y), self.area.spaces.active.region_3d
        scene_object = active_scene_object(context)
        to_object = scene_object.matrix_world.inverted_safe()
        origin = to_object @ view3d_utils.region_2d_to_origin_3d(region, view, at)
        direction = to_object.to_3x3() @ view3d_utils.region_2d_to_vector_3d(region, view, at)
        hit, place, _, _ = scene_object.ray_cast(
            origin, direction.normalized(), depsgraph=context.evaluated_depsgraph_get()
        )
        return scene_object.matrix_world @ place if hit else None

    def draw_picked(self) -> None:
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        shader.uniform_float("color", _PICKED_COLOR)
        gpu.state.point_size_set(10.0)
        batch_for_shader(shader, "POINTS", {"pos": [tuple(point) for point in self.picked]}).draw(shader)
        if len(self.picked) > 1:
            batch_for_shader(shader, "LINE_STRIP", {"pos": [tuple(point) for point in self.picked]}).draw(shader)
        gpu.state.point_size_set(1.0)


class EX4D_OT_pick_scale(_PicksPoints, bpy.types.Operator):
    bl_idname = "ex4d.pick_scale"
    bl_label = "Pick Two Points"
    bl_description = "Click two points of the scene, and say how far they really are from each other"
    count, hint = 2, "Scale"

    def use(self, context: bpy.types.Context) -> set[str]:
        apart = (self.picked[0] - self.picked[1]).length
        if apart < 1e-6:
            self.report({"ERROR"}, "Both points are at the same place; pick two that are apart")
            return {"CANCELLED"}
        bpy.ops.ex4d.set_scale("INVOKE_DEFAULT", method="DISTANCE", measured=apart, distance=apart)
        return {"FINISHED"}


class EX4D_OT_pick_ground(_PicksPoints, bpy.types.Operator):
    bl_idname = "ex4d.pick_ground"
    bl_label = "Pick Three Points"
    bl_description = "Click three points on the ground; the scene is turned upright and set on height 0"
    count, hint = 3, "Ground"

    def use(self, context: bpy.types.Context) -> set[str]:
        points = [value for point in self.picked for value in point]
        try:
            return bpy.ops.ex4d.align_ground("EXEC_DEFAULT", True, method="POINTS", points=points)
        except RuntimeError as error:  # what it reported
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}


def _stop_drawing(drawing: object) -> None:
    _drawing.remove(drawing)
    bpy.types.SpaceView3D.draw_handler_remove(drawing, "WINDOW")


def _is_in(region: bpy.types.Region, area: bpy.types.Area, event: bpy.types.Event) -> bool:
    """Whether the mouse is over a region, and not over a side bar that lies upon it."""

    def over(one: bpy.types.Region) -> bool:
        x, y = event.mouse_x - one.x, event.mouse_y - one.y
        return 0 <= x < one.width and 0 <= y < one.height

    return over(region) and not any(over(one) for one in area.regions if one.type != "WINDOW" and one.width > 1)


def _selected_vertices(scene_object: bpy.types.Object) -> np.ndarray:
    """(N, 3) selected vertices as Edit Mode shows them, in Blender's world.

    Raises:
        GroundError: the scene is not in Edit Mode.
    """
    if scene_object.mode != "EDIT":
        raise GroundError("no vertices are selected: enter Edit Mode on the scene and select three on the ground")
    scene_object.update_from_editmode()
    vertices = scene_object.data.vertices
    positions, selected = np.empty(3 * len(vertices), dtype=np.float32), np.empty(len(vertices), dtype=bool)
    vertices.foreach_get("co", positions)
    vertices.foreach_get("select", selected)
    to_world = np.array(scene_object.matrix_world, dtype=np.float64)
    return positions.reshape(-1, 3)[selected] @ to_world[:3, :3].T + to_world[:3, 3]


CLASSES = (
    EX4D_OT_set_scale,
    EX4D_OT_align_ground,
    EX4D_OT_reset_placement,
    EX4D_OT_pick_scale,
    EX4D_OT_pick_ground,
)


def unregister() -> None:
    for drawing in list(_drawing):  # Blender ends an operator whose class goes, and does not tell it
        _stop_drawing(drawing)
