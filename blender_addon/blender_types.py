"""Blender's classes as a type checker should see them in this add-on; at run time they are Blender's own.

The stubs of bpy do not know the properties that the add-on registers on scenes, and call optional what is always there
while the add-on's code runs (a panel's layout, a context's scene). Operators, panels, menus and lists derive from the
classes below and take a `Context`; functions on a Blender scene take a `BlenderScene`, whose ``ex4d_...`` properties
are typed; outside a callback `current_context` gives the context. An object's scene link is read with
`scenes.link.link_of`. Operators are called through `ops`, and menus of Blender are extended through `classes`.
"""

# pyright: reportIncompatibleVariableOverride=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import bpy

if TYPE_CHECKING:
    from bpy.types import bpy_prop_collection_idprop as Collection

    from .coverage.panel import EX4D_Coverage
    from .coverage.path_drawing import EX4D_PathDisplay
    from .footage.properties import EX4D_Footage, EX4D_Reconstruction
    from .passes.properties import EX4D_Passes
    from .shots.properties import EX4D_Shot
    from .takes.properties import EX4D_Take
    from .views.draft_panel import EX4D_Draft
    from .views.panel import EX4D_View

    class BlenderScene(bpy.types.Scene):
        """A Blender scene with the add-on's properties."""

        ex4d_viewports: bool
        ex4d_shots: Collection[EX4D_Shot]
        ex4d_shot_index: int
        ex4d_unlisted_shot: EX4D_Shot
        ex4d_shot: EX4D_Shot
        ex4d_takes: Collection[EX4D_Take]
        ex4d_take_index: int
        ex4d_takes_of_shot: bool
        ex4d_passes: Collection[EX4D_Passes]
        ex4d_edit_scene: bpy.types.Scene | None
        ex4d_footage: EX4D_Footage
        ex4d_reconstructions: Collection[EX4D_Reconstruction]
        ex4d_coverage: EX4D_Coverage
        ex4d_path: EX4D_PathDisplay
        ex4d_view: EX4D_View
        ex4d_draft: EX4D_Draft
        view_settings: Any

    class Context(bpy.types.Context):
        """A context with what every callback of the add-on finds; ``area`` and ``region_data`` may be missing."""

        scene: BlenderScene
        view_layer: bpy.types.ViewLayer
        window_manager: Any
        workspace: bpy.types.WorkSpace
        preferences: bpy.types.Preferences
        region: bpy.types.Region
        space_data: Any
        temp_override: Any

    # Not of bpy's classes: our callbacks take a `Context`, which is narrower than theirs.
    class Operator(Any):
        """An operator, whose callbacks return a set of result names."""

        bl_options: ClassVar[set[str]]
        layout: bpy.types.UILayout

    class Panel(Any):
        """A panel or menu."""

        bl_options: ClassVar[set[str]]
        layout: bpy.types.UILayout

    class FileOperator(Operator):
        """An operator that asks for a file."""

        filepath: str

    ImportHelper = ExportHelper = FileOperator
    OperatorMixin, PanelMixin, Menu, UIList = Operator, Panel, Panel, Any
else:
    from bpy_extras.io_utils import ExportHelper, ImportHelper  # noqa: F401 - for operators

    BlenderScene, Context, Operator = bpy.types.Scene, bpy.types.Context, bpy.types.Operator
    Panel, Menu, UIList = bpy.types.Panel, bpy.types.Menu, bpy.types.UIList
    # Bases of what operators or panels share: Blender reads the properties of bases that are not classes of its own.
    OperatorMixin = PanelMixin = object


class Subscripted:
    """A generic class whose subscripts are for type checkers alone.

    The cache of `typing` would keep the class, and with it the module bpy, past the end of Python, which crashes 4.2.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, _: object) -> type:
            return cls


class SidebarPanel(PanelMixin):
    """A panel in the EX-4D tab of the 3D viewport's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "EX-4D"


# All operators with the add-on's own, and all classes with the menus to append to.
ops: Any = bpy.ops
classes: Any = bpy.types


def current_context() -> Context:
    """Blender's context, for code outside a callback."""
    return cast(Context, bpy.context)


def enum_items(owner: Any, name: str) -> bpy.types.bpy_prop_collection[bpy.types.EnumPropertyItem]:
    """The choices of an enum property of a Blender class or value, by identifier."""
    return owner.bl_rna.properties[name].enum_items
