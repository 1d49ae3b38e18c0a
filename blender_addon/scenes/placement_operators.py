"""Operators that scale a scene and align it to the ground, also by points picked in the viewport."""

from __future__ import annotations

import bpy
import gpu
import mathutils
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy_extras import view3d_utils
from gpu_extras.batch import batch_for_shader

from ..blender_types import Context, Operator, ops
from ..errors import reports_errors
from .ground import PlacementError, Plane, plane_through, upright
from .link import NeedsScene, active_scene_object, chosen_scene_object
from .mesh import mesh_data
from .placement import eye_of, ground_of, move_scene, require_movable, reset_scene, scale_scene
from .surface_picking import seen_point

_PICKED_COLOR = (1.0, 0.8, 0.1, 1.0)

# Draw handlers of the operators that are picking points.
_draw_handlers: list[object] = []


class EX4D_OT_set_scale(NeedsScene, Operator):
    """Scale the scene to its real size, with its cameras; takes stay the same."""

    bl_idname = "ex4d.set_scale"
    bl_label = "Set Scene Scale"
    bl_options = {"REGISTER", "UNDO"}

    method: bpy.props.EnumProperty(
        name="By",
        description="How to specify the scale",
        items=(
            ("FACTOR", "Factor", "Multiply the current size"),
            ("DISTANCE", "Distance", "Enter the real distance between two points"),
        ),
        default="FACTOR",
    )
    factor: bpy.props.FloatProperty(
        name="Factor", description="Factor to multiply the size by", default=1.0, min=1e-6, soft_max=100.0, precision=4
    )
    measured: bpy.props.FloatProperty(
        name="Current",
        description="Current distance between the two points",
        subtype="DISTANCE",
        default=1.0,
        min=1e-9,
    )
    distance: bpy.props.FloatProperty(
        name="Distance",
        description="Real distance between the two points",
        subtype="DISTANCE",
        default=1.0,
        min=1e-6,
    )

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, confirm_text=self.bl_label)

    def draw(self, context: Context) -> None:
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
    def execute(self, context: Context) -> set[str]:
        factor = self.factor if self.method == "FACTOR" else self.distance / self.measured
        scale_scene(chosen_scene_object(context), factor)
        return {"FINISHED"}


class EX4D_OT_align_ground(NeedsScene, Operator):
    """Rotate the scene upright and move its ground to height 0, with its cameras."""

    bl_idname = "ex4d.align_ground"
    bl_label = "Align to Ground"
    bl_options = {"REGISTER", "UNDO"}

    method: bpy.props.EnumProperty(
        name="Ground",
        description="Where the ground is",
        items=(
            ("FOOTAGE", "From Footage", "Find the largest flat surface in the lower part of the current frame"),
            ("CURSOR", "3D Cursor", "Use the location and orientation of the 3D cursor"),
            ("VERTICES", "Selected Vertices", "Use three or more vertices that are selected in Edit Mode"),
            ("POINTS", "Three Points", "Use three picked points"),
        ),
        default="FOOTAGE",
    )
    share: bpy.props.FloatProperty(
        name="Lower Part",
        description="Fraction of the frame, from the bottom, to find the ground in",
        subtype="FACTOR",
        default=0.4,
        min=0.05,
        max=1.0,
    )
    height: bpy.props.FloatProperty(
        name="Height", description="Height of the ground after the alignment", subtype="DISTANCE", default=0.0
    )
    points: bpy.props.FloatVectorProperty(
        description="Three points in world space", size=9, options={"HIDDEN", "SKIP_SAVE"}
    )

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        if self.method != "POINTS":
            layout.prop(self, "method")
        if self.method == "FOOTAGE":
            layout.prop(self, "share")
        layout.prop(self, "height")

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        require_movable(scene_object)
        matrix = upright(self.ground(context, scene_object), self.height)
        move_scene(scene_object, mathutils.Matrix(matrix.tolist()))
        return {"FINISHED"}

    def ground(self, context: Context, scene_object: bpy.types.Object) -> Plane:
        """The ground, found by the chosen method.

        Raises:
            PlacementError: no ground was found.
            SceneError: the scene package is missing or changed.
        """
        eye = eye_of(scene_object)
        if self.method == "FOOTAGE":
            return ground_of(scene_object, context.scene.frame_current, self.share)
        if self.method == "POINTS":
            return plane_through(np.array(self.points).reshape(3, 3), eye)
        if self.method == "VERTICES":
            return plane_through(_selected_vertices(scene_object), eye)
        cursor = np.array(context.scene.cursor.matrix, dtype=np.float64)
        return Plane(cursor[:3, 3], cursor[:3, 2])


class EX4D_OT_reset_placement(NeedsScene, Operator):
    """Reset the scene to the location, rotation and scale of its import, with its cameras."""

    bl_idname = "ex4d.reset_placement"
    bl_label = "Reset Placement"
    bl_options = {"REGISTER", "UNDO"}

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        reset_scene(chosen_scene_object(context))
        return {"FINISHED"}


class PicksPoints(NeedsScene):
    """Waits for clicks on the scene in the viewport, and passes all other input on."""

    count: int
    hint: str

    def use(self, context: Context) -> set[str]:
        """What each operator does with the ``picked`` points, in Blender's world, once there are ``count``."""
        raise NotImplementedError

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.area is None or context.area.type != "VIEW_3D":
            cls.poll_message_set(iface_("Use this in a 3D viewport"))
            return False
        return super().poll(context)

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        self.picked: list[mathutils.Vector] = []
        self.area = context.area
        self.draw_handler = bpy.types.SpaceView3D.draw_handler_add(self.draw_picked, (), "WINDOW", "POST_VIEW")
        _draw_handlers.append(self.draw_handler)
        context.window_manager.modal_handler_add(self)
        self.show_status(context)
        return {"RUNNING_MODAL"}

    def modal(self, context: Context, event: bpy.types.Event) -> set[str]:
        # The scene may be deleted and the viewport closed meanwhile, since all other input is passed on.
        gone = not self.area_is_open(context) or active_scene_object(context) is None
        if gone or (event.type in ("ESC", "RIGHTMOUSE") and event.value == "PRESS"):
            self.cancel(context)
            return {"CANCELLED"}
        window = next((one for one in self.area.regions if one.type == "WINDOW"), None)
        clicked = event.type == "LEFTMOUSE" and event.value == "PRESS"
        if window is None or not clicked or not _is_in(window, self.area, event):
            return {"PASS_THROUGH"}
        point = self.point_under(context, window, event)
        if point is None:
            self.report({"WARNING"}, "No surface of the scene there; click on the scene")
            return {"RUNNING_MODAL"}
        self.picked.append(point)
        self.area.tag_redraw()
        if len(self.picked) < self.count:
            self.show_status(context)
            return {"RUNNING_MODAL"}
        self.cancel(context)
        return self.use(context)

    def cancel(self, context: Context) -> None:
        _remove_draw_handler(self.draw_handler)
        context.workspace.status_text_set(None)
        if self.area_is_open(context):
            self.area.tag_redraw()

    def area_is_open(self, context: Context) -> bool:
        return any(self.area == area for one in context.window_manager.windows for area in one.screen.areas)

    def show_status(self, context: Context) -> None:
        text = iface_("{hint}: click point {number} of {count} on the scene, Esc to cancel")
        hint = iface_(self.hint)
        context.workspace.status_text_set(text.format(hint=hint, number=len(self.picked) + 1, count=self.count))

    def point_under(
        self, context: Context, region: bpy.types.Region, event: bpy.types.Event
    ) -> mathutils.Vector | None:
        """The point of the scene object under the mouse, in Blender's world."""
        space = self.area.spaces.active
        assert isinstance(space, bpy.types.SpaceView3D) and space.region_3d is not None
        at, view = (event.mouse_x - region.x, event.mouse_y - region.y), space.region_3d
        origin = view3d_utils.region_2d_to_origin_3d(region, view, at)
        direction = view3d_utils.region_2d_to_vector_3d(region, view, at)
        return seen_point(chosen_scene_object(context), origin, direction, context.evaluated_depsgraph_get())

    def draw_picked(self) -> None:
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        shader.uniform_float("color", _PICKED_COLOR)
        gpu.state.point_size_set(10.0)
        batch_for_shader(shader, "POINTS", {"pos": [point.to_tuple() for point in self.picked]}).draw(shader)
        if len(self.picked) > 1:
            batch_for_shader(shader, "LINE_STRIP", {"pos": [point.to_tuple() for point in self.picked]}).draw(shader)
        gpu.state.point_size_set(1.0)


class EX4D_OT_pick_scale(PicksPoints, Operator):
    """Click two points of the scene, then enter the real distance between them."""

    bl_idname = "ex4d.pick_scale"
    bl_label = "Pick Two Points"
    count, hint = 2, "Scale"

    def use(self, context: Context) -> set[str]:
        distance = (self.picked[0] - self.picked[1]).length
        if distance < 1e-6:
            self.report({"ERROR"}, "Both points are in the same place; pick two different points")
            return {"CANCELLED"}
        ops.ex4d.set_scale("INVOKE_DEFAULT", method="DISTANCE", measured=distance, distance=distance)
        return {"FINISHED"}


class EX4D_OT_pick_ground(PicksPoints, Operator):
    """Click three points on the ground to rotate the scene upright and move its ground to height 0."""

    bl_idname = "ex4d.pick_ground"
    bl_label = "Pick Three Points"
    count, hint = 3, "Ground"

    def use(self, context: Context) -> set[str]:
        points = [value for point in self.picked for value in point]
        try:
            return ops.ex4d.align_ground("EXEC_DEFAULT", True, method="POINTS", points=points)
        except RuntimeError as error:  # its report
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}


def _remove_draw_handler(draw_handler: object) -> None:
    _draw_handlers.remove(draw_handler)
    bpy.types.SpaceView3D.draw_handler_remove(draw_handler, "WINDOW")


def _is_in(region: bpy.types.Region, area: bpy.types.Area, event: bpy.types.Event) -> bool:
    """Whether the mouse is over a region, and not over a sidebar on top of it."""

    def over(one: bpy.types.Region) -> bool:
        x, y = event.mouse_x - one.x, event.mouse_y - one.y
        return 0 <= x < one.width and 0 <= y < one.height

    return over(region) and not any(over(one) for one in area.regions if one.type != "WINDOW" and one.width > 1)


def _selected_vertices(scene_object: bpy.types.Object) -> np.ndarray:
    """(N, 3) selected vertices as Edit Mode shows them, in Blender's world.

    Raises:
        PlacementError: the scene is not in Edit Mode.
    """
    if scene_object.mode != "EDIT":
        raise PlacementError("no vertices are selected; enter Edit Mode on the scene and select three on the ground")
    scene_object.update_from_editmode()
    vertices = mesh_data(scene_object).vertices
    positions, selected = np.empty(3 * len(vertices), dtype=np.float32), np.empty(len(vertices), dtype=bool)
    vertices.foreach_get("co", positions)
    vertices.foreach_get("select", selected)
    to_world = np.array(scene_object.matrix_world, dtype=np.float64)
    return positions.reshape(-1, 3)[selected] @ to_world[:3, :3].T + to_world[:3, 3]


CLASSES = (EX4D_OT_set_scale, EX4D_OT_align_ground, EX4D_OT_reset_placement, EX4D_OT_pick_scale, EX4D_OT_pick_ground)


def unregister() -> None:
    """Stop drawing picked points; Blender ends operators whose class is unregistered without calling ``cancel``."""
    for draw_handler in list(_draw_handlers):
        _remove_draw_handler(draw_handler)
