"""The pivot of an imported scene: what new moves are about, chosen by the artist and kept with the scene.

``Object.ex4d_pivot`` is the choice. `pivot_of` makes of it what moves take, `place_of` is where viewports show it.
"""

from __future__ import annotations

from typing import Any

import bpy
import mathutils
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError
from ex4d_core.pivots import DEFAULT_PIVOT, Pivot
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError

from ..blender_types import Context, Operator
from ..scenes.link import active_scene_object, chosen_scene_object, is_scene_object, link_of, open_scene
from ..scenes.placement_operators import PicksPoints

MIDDLE, CURSOR, OBJECT, POINT = "MIDDLE", "CURSOR", "OBJECT", "POINT"

# Where the middle of frame 0 is in the scene's world, by the package's digest: viewports are drawn often.
_middles: dict[str, tuple[float, ...]] = {}


def _is_place(_: Any, candidate: bpy.types.Object) -> bool:
    """Whether an object may stand at a pivot: no imported scene, whose origin is where the footage was filmed from."""
    return not is_scene_object(candidate)


def _take_active(pivot: Any, context: bpy.types.Context) -> None:
    """Active Object means the one that is active when it is chosen: a new move's camera becomes active itself."""
    active = context.view_layer.objects.active
    if pivot.kind == OBJECT and active is not None and _is_place(pivot, active) and active.parent != pivot.id_data:
        pivot.target = active


def _note_name(pivot: Any, _: bpy.types.Context) -> None:
    if pivot.target is not None:
        pivot.target_name = pivot.target.name


class EX4D_Pivot(bpy.types.PropertyGroup):
    """What the moves of an imported scene are about (``Object.ex4d_pivot``)."""

    kind: bpy.props.EnumProperty(
        name="Pivot",
        description="What new moves orbit, approach and keep in place; EX-4D's arcs keep the point that EX-4D finds",
        items=(
            (
                MIDDLE,
                "Middle of Picture",
                "Straight ahead, at the median depth of what stands out in the picture's middle third",
            ),
            (CURSOR, "3D Cursor", "The 3D cursor"),
            (OBJECT, "Active Object", "The origin of the object that is active now"),
            (POINT, "Picked Point", "The point of the scene that was clicked on"),
        ),
        default=MIDDLE,
        update=_take_active,
    )
    target: bpy.props.PointerProperty(
        name="Object",
        description="Object whose origin moves are about",
        type=bpy.types.Object,
        poll=_is_place,
        update=_note_name,
    )
    target_name: bpy.props.StringProperty(description="Name of the object, to tell which one was deleted")
    point: bpy.props.FloatVectorProperty(description="The picked point in the scene's world", size=3)
    is_picked: bpy.props.BoolProperty(description="Whether a point was picked")


def pivot_settings(scene_object: bpy.types.Object) -> EX4D_Pivot:
    """The pivot that was chosen for an imported scene."""
    return scene_object.ex4d_pivot  # pyright: ignore[reportAttributeAccessIssue]


def pivot_of(scene_object: bpy.types.Object, context: Context) -> Pivot:
    """What moves through an imported scene are about, on the current frame.

    Raises:
        RequestError: the object was deleted, or nothing was picked yet.
    """
    chosen = pivot_settings(scene_object)
    if chosen.kind == MIDDLE:
        return DEFAULT_PIVOT
    if chosen.kind == POINT:
        if not chosen.is_picked:
            raise RequestError("no pivot was picked; press Pick Pivot in the Camera panel and click on the scene")
        return Pivot(tuple(chosen.point))
    place = context.scene.cursor.location if chosen.kind == CURSOR else _origin_of(chosen, context)
    return Pivot(tuple(_evaluated(scene_object, context).matrix_world.inverted_safe() @ place))


def place_of(scene_object: bpy.types.Object, context: Context) -> mathutils.Vector | None:
    """Where the pivot is in Blender's world; None without a pivot, or if the scene package is missing."""
    try:
        pivot = pivot_of(scene_object, context)
    except RequestError:
        return None
    try:
        place: Any = _middle_of(scene_object) if pivot == DEFAULT_PIVOT else pivot.place
    except SceneError:  # the files are gone, which the panels say
        return None
    return _evaluated(scene_object, context).matrix_world @ mathutils.Vector(place)


def pivot_distance(scene_object: bpy.types.Object, package: Scene, first_frame: int, context: Context) -> float:
    """How far the pivot is from the source camera in a frame of the footage, from 0, in scene units.

    Raises:
        RequestError: see `pivot_of` and `Pivot.in_view`.
    """
    return mathutils.Vector(pivot_of(scene_object, context).in_view(package, first_frame)).length


def _origin_of(chosen: EX4D_Pivot, context: Context) -> mathutils.Vector:
    target: bpy.types.Object | None = chosen.target
    if target is None or target.name not in context.scene.objects:
        name = chosen.target_name if target is None else target.name
        if not name:
            raise RequestError("no object is the pivot yet; choose one in the Camera panel, below Pivot")
        raise RequestError(f"the pivot {name!r} is no longer in this scene; choose another pivot in the Camera panel")
    return _evaluated(target, context).matrix_world.translation


def _evaluated(one: bpy.types.Object, context: Context) -> bpy.types.Object:
    return one.evaluated_get(context.evaluated_depsgraph_get())


def _middle_of(scene_object: bpy.types.Object) -> tuple[float, ...]:
    digest = link_of(scene_object).digest
    if digest not in _middles:
        package = open_scene(scene_object)
        pose = package.source_camera().camera_to_world[0]
        _middles[digest] = tuple((pose[:3, :3] @ DEFAULT_PIVOT.in_view(package, 0) + pose[:3, 3]).tolist())
    return _middles[digest]


class EX4D_OT_pick_pivot(PicksPoints, Operator):
    """Click on the scene, in a camera's view or any other, to set the point that new moves are about."""

    bl_idname = "ex4d.pick_pivot"
    bl_label = "Pick Pivot"
    bl_options = {"UNDO"}
    count, hint = 1, "Pivot"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not super().poll(context):
            return False
        scene_object = active_scene_object(context)
        if scene_object is not None and scene_object.library is not None:
            cls.poll_message_set(iface_("The scene is linked from another file; pick its pivot there"))
            return False
        return True

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        context.window.cursor_modal_set("EYEDROPPER")
        return super().invoke(context, event)

    def cancel(self, context: Context) -> None:
        context.window.cursor_modal_restore()
        super().cancel(context)

    def show_status(self, context: Context) -> None:
        context.workspace.status_text_set(iface_("Click on what moves are about; Esc or right click to cancel"))

    def use(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        pivot: Any = pivot_settings(scene_object)
        pivot.point = _evaluated(scene_object, context).matrix_world.inverted_safe() @ self.picked[0]
        pivot.is_picked, pivot.kind = True, POINT
        return {"FINISHED"}


CLASSES = (EX4D_Pivot, EX4D_OT_pick_pivot)
PROPERTIES = ((bpy.types.Object, "ex4d_pivot", bpy.props.PointerProperty(type=EX4D_Pivot)),)
