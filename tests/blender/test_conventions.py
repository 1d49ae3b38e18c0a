"""Blender's own ways into the add-on: manual links, keys, the pie menu, menus, drops, and what needs numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import unquote, urlsplit

import bpy
import pytest

from blender_addon.help.manual import MANUAL
from blender_addon.shortcuts.key_map import KEYS, find_item
from ex4d_core.sources import VIDEO_SUFFIXES

from .conftest import ROOT
from .drawn import draw_menu


def add_on() -> ModuleType:
    """The add-on's module; Blender loads another one after a failure."""
    return sys.modules["blender_addon"]


def page_of(name: str) -> str:
    """The page that F1 opens on what Blender calls by this name."""
    from bl_operators.wm import WM_OT_doc_view_manual

    return WM_OT_doc_view_manual._lookup_rna_url(name, verbose=False)


def names_of_buttons() -> list[str]:
    names = []
    for module in add_on().MODULES:
        for kind in getattr(module, "CLASSES", ()):
            if issubclass(kind, bpy.types.Operator):
                group, _, name = kind.bl_idname.partition(".")
                names.append(f"bpy.ops.{group}.{name}")
            elif issubclass(kind, bpy.types.PropertyGroup | bpy.types.AddonPreferences):
                names += [f"bpy.types.{kind.__name__}.{one}" for one in kind.__annotations__]
        names += [f"bpy.types.{owner.__name__}.{name}" for owner, name, _ in getattr(module, "PROPERTIES", ())]
    return names


def test_every_button_leads_to_a_page_of_the_manual():
    names = names_of_buttons()
    assert len(names) > 100
    for name in names:
        page = page_of(name)
        assert page and page.startswith(MANUAL.as_uri()), f"{name} leads to {page}"
        file = unquote(urlsplit(page).path)
        assert os.path.isfile(file), file
    assert page_of("bpy.ops.ex4d.reconstruct").endswith("scene.html")
    assert page_of("bpy.types.EX4D_Shot.occlusion").endswith("shots-and-takes.html")
    assert page_of("bpy.types.EX4D_Preferences.licence").endswith("preferences.html")
    assert not page_of("bpy.ops.object.delete").startswith("file:"), "Blender's own buttons keep their manual"


def test_the_manual_is_gone_with_the_add_on():
    add_on().unregister()
    try:
        assert page_of("bpy.ops.ex4d.reconstruct") is None
    finally:
        add_on().register()


def taken_keys() -> dict[tuple, list[str]]:
    """What Blender's own key map has on each key, in the editors of the add-on's keys and above them."""
    (folder,) = (path for path in map(Path, bpy.utils.preset_paths("keyconfig")) if (path / "Blender.py").is_file())
    sys.path.insert(0, str(folder / "keymap_data"))
    try:
        import blender_default
    finally:
        sys.path.pop(0)
    everywhere = ("Window", "Screen", "Screen Editing", "Frames", "User Interface", "Header", "View2D", "Markers")
    viewport = ("3D View", "3D View Generic", "Object Mode", "Object Non-modal", "Mesh", "Curve", "Pose", "Sculpt")
    found: dict[tuple, list[str]] = {}
    for name, _, content in blender_default.generate_keymaps():
        for operator, event, *_ in content["items"]:
            held = tuple(sorted(one for one in ("alt", "ctrl", "shift", "oskey", "any") if event.get(one)))
            spaces = {"Sequencer": ("SEQUENCE_EDITOR",)}.get(name, ())
            spaces = ("SEQUENCE_EDITOR", "VIEW_3D") if name in everywhere else spaces
            for space in ("VIEW_3D",) if name in viewport else spaces:
                found.setdefault((space, event["type"], held), []).append(f"{name}: {operator}")
    assert len(found) > 200
    return found


def test_keys_are_in_the_key_map_of_add_ons_and_free_in_blenders():
    manager, taken = bpy.context.window_manager, taken_keys()
    for key in KEYS:
        key_map = manager.keyconfigs.addon.keymaps[key.key_map]
        item = find_item(key_map, key)
        assert (item.type, item.value, item.active) == (key.key, "PRESS", True)
        assert (item.shift, item.ctrl, item.alt) == tuple(one in key.modifiers for one in ("shift", "ctrl", "alt"))
        clash = taken.get((key.space, key.key, tuple(sorted(key.modifiers))), [])
        assert not clash, f"{item.to_string()} is {clash}"
    add_on().unregister()
    left = [find_item(manager.keyconfigs.addon.keymaps[key.key_map], key) for key in KEYS]
    add_on().register()
    assert left == [None] * len(KEYS)


def test_preferences_find_a_key_that_the_artist_has_changed():
    manager = bpy.context.window_manager
    manager.keyconfigs.update()
    pie = KEYS[0]
    item = find_item(manager.keyconfigs.user.keymaps[pie.key_map], pie)
    assert item is not None
    item.type, item.shift = "F9", False
    assert find_item(manager.keyconfigs.user.keymaps[pie.key_map], pie).type == "F9"


def test_the_pie_menu_has_eight_directions_with_and_without_a_scene(shot):
    with_scene = draw_menu("EX4D_MT_pie").operators
    bpy.data.objects.remove(shot)
    assert len(with_scene) == 8 and draw_menu("EX4D_MT_pie").operators == with_scene


@pytest.mark.parametrize(
    ("menu", "operators"),
    [
        ("TOPBAR_MT_render", {"ex4d.send_take", "ex4d.send_final", "ex4d.show_result", "ex4d.show_view"}),
        ("TOPBAR_MT_file_import", {"ex4d.import_scene"}),
        ("TOPBAR_MT_file_export", {"ex4d.export_cut"}),
        ("VIEW3D_MT_camera_add", {"ex4d.add_camera", "ex4d.camera_to_view"}),
        ("VIEW3D_MT_view_cameras", {"ex4d.look_through_shot", "ex4d.look_through_source", "ex4d.shoot_view"}),
        ("SEQUENCER_MT_strip", {"ex4d.flip_version", "ex4d.use_movie_strip"}),
        ("DOPESHEET_MT_marker", {"ex4d.shots_from_markers"}),
    ],
)
def test_blenders_menus_have_the_operators(menu, operators):
    drawn = draw_menu(menu)
    assert operators <= set(drawn.operators)
    for name in drawn.operators:
        group, _, operator = name.partition(".")
        assert operator in dir(getattr(bpy.ops, group)), name
    add_on().unregister()
    left = draw_menu(menu).operators
    add_on().register()
    assert left == [], "Blender's menu is as it was"


def test_takes_without_a_strip_are_in_the_sequencers_add_menu(shot, images):
    from blender_addon.sequencer.edit_scenes import strip_in_file
    from blender_addon.takes.menus import takes_without_strip
    from blender_addon.takes.requests import build_request, save_request

    scene = bpy.context.scene
    assert draw_menu("SEQUENCER_MT_add").menus == ["EX4D_MT_add_take"] and not takes_without_strip()
    take = scene.ex4d_takes.add()
    take.key, take.label, take.frames, take.last_event, take.state = "ab12", "arc", 9, 9, "done"
    take.folder, take.frame_start, take.fps = str(images[0].parent), 11, 24.0
    assert draw_menu("EX4D_MT_add_take").operators == ["ex4d.place_take"]
    _, request = build_request(shot, scene.ex4d_shot.camera, 11, 19)
    save_request(images[0].parent, request)
    assert bpy.ops.ex4d.place_take(key="ab12") == {"FINISHED"}
    assert strip_in_file("ab12") is not None and not takes_without_strip()
    assert draw_menu("EX4D_MT_add_take").operators == []


def handlers_for(suffix: str) -> set[str]:
    """What Blender offers for a dropped file, by the operators that it runs."""
    kinds = (kind for module in add_on().MODULES for kind in getattr(module, "CLASSES", ()))
    handlers = (kind for kind in kinds if issubclass(kind, bpy.types.FileHandler))
    return {kind.bl_import_operator for kind in handlers if suffix in kind.bl_file_extensions.split(";")}


def test_what_can_be_dropped():
    assert all("ex4d.pick_footage" in handlers_for(suffix) for suffix in VIDEO_SUFFIXES)
    assert handlers_for(".npz") == {"ex4d.pick_depth"}
    assert handlers_for(".exr") == handlers_for(".png") == {"ex4d.pick_depth", "ex4d.pick_footage"}
    assert handlers_for(".jpg") == {"ex4d.pick_footage"}
    assert handlers_for(".json") == handlers_for(".bin") == handlers_for(".txt") == {"ex4d.drop_file"}


def test_images_are_taken_only_where_the_tab_is_shown():
    from blender_addon.footage.drops import EX4D_FH_depth_images, EX4D_FH_footage

    def over(tab: str, opened: bool = True) -> SimpleNamespace:
        sidebar = SimpleNamespace(type="UI", active_panel_category=tab)
        area = SimpleNamespace(type="VIEW_3D", regions=[SimpleNamespace(type="WINDOW"), sidebar])
        return SimpleNamespace(area=area, space_data=SimpleNamespace(show_region_ui=opened))

    assert EX4D_FH_depth_images.poll_drop(over("EX-4D"))
    assert not EX4D_FH_depth_images.poll_drop(over("Item"))
    assert not EX4D_FH_depth_images.poll_drop(over("EX-4D", opened=False))
    assert EX4D_FH_footage.poll_drop(over("Item")), "Blender does nothing else with videos there"


def test_a_dropped_manifest_imports_its_scene(card_scene):
    assert bpy.ops.ex4d.drop_file(filepath=str(card_scene / "manifest.json")) == {"FINISHED"}
    assert [one.name for one in bpy.data.objects if one.ex4d_scene.digest]


def test_a_dropped_image_stands_for_its_sequence_and_a_colmap_file_for_its_model(images, tmp_path):
    settings = bpy.context.scene.ex4d_footage
    names = [{"name": path.name} for path in images.values()]
    dropped = {"filepath": str(images[3]), "directory": str(images[3].parent), "files": names}
    assert bpy.ops.ex4d.pick_footage(**dropped) == {"FINISHED"}
    assert settings.footage == str(images[3].parent)
    assert bpy.ops.ex4d.pick_depth(**dropped) == {"FINISHED"} and settings.depth_from == "FILES"
    (tmp_path / "sparse").mkdir()
    for name in ("cameras.bin", "images.bin"):
        (tmp_path / "sparse" / name).touch()
    settings.camera_from = "OBJECT"
    assert bpy.ops.ex4d.drop_file(filepath=str(tmp_path / "sparse" / "images.bin")) == {"FINISHED"}
    assert (settings.camera_from, settings.camera) == ("FILE", str(tmp_path / "sparse" / "images.bin"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RuntimeError, match=r"notes\.txt is not a camera file"):
        bpy.ops.ex4d.drop_file(filepath=str(tmp_path / "notes.txt"))
    assert settings.camera.endswith("images.bin")


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None  # as where the package was never installed
import addon_utils, bpy
addon = addon_utils.enable("blender_addon", default_set=True)
assert addon is not None, "it must register"
from blender_addon.missing_numpy import install_command, reason
assert "numpy" in reason() and install_command().split()[-1] in reason(), reason()
assert bpy.types.EX4D_PT_missing_numpy.bl_category == "EX-4D" and not hasattr(bpy.types, "EX4D_PT_scene")
assert bpy.context.preferences.addons["blender_addon"].preferences is not None
assert bpy.ops.ex4d.copy_install_command() == {"FINISHED"}
addon_utils.disable("blender_addon")
print("registered without numpy")
"""


def test_without_numpy_the_add_on_says_which_package_is_missing():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import bpy\n{WITHOUT_NUMPY}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "registered without numpy" in done.stdout, done.stdout + done.stderr


def test_a_bug_report_names_versions_and_the_last_failure():
    from blender_addon.errors import contained, forget_failures
    from blender_addon.help.links import bug_report

    with contained():
        raise KeyError("lost")
    report = bug_report()
    forget_failures()
    assert bpy.app.version_string in report and "KeyError: 'lost'" in report
    assert not bpy.ops.ex4d.website.poll(), "the checkout's manifest has no website"
