"""What viewports mark as unseen: the same in all shadings, and what a render leaves unseen.

Blender 5.2 can draw without a window, so there the add-on draws into a picture of the camera's size, over a stand-in
for what the viewport itself has drawn. tests/gui has real windows.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import bpy
import gpu
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.pivots import pivot_settings
from blender_addon.scenes import unseen_areas
from blender_addon.scenes.back_limits import measure
from blender_addon.scenes.face_shaders import STRETCHED, draw_batch, face_shader
from blender_addon.scenes.gpu_meshes import batches_of, gpu_meshes
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.material import SOURCE_EYE
from blender_addon.scenes.mesh import mesh_data
from blender_addon.scenes.viewport_looks import ViewportLook, look_of

from .conftest import backend_environment
from .test_first_look import open_factory_file, spaces

EEVEE = "BLENDER_EEVEE" if bpy.app.version >= (5, 0) else "BLENDER_EEVEE_NEXT"
COLORED = ViewportLook(surfaces=True, footage=False, material=False)
TEXTURED = ViewportLook(surfaces=True, footage=True, material=False)
SHADED = ViewportLook(surfaces=True, footage=True, material=True)
THROUGH = ViewportLook(surfaces=False, footage=False, material=False)

OCCLUSIONS = ("watertight", "thickness", "open")
SIZE = (96, 64)
MAGENTA = (1.0, 0.0, 1.0, 1.0)
GRAY = (0.4, 0.4, 0.4, 1.0)
# What the camera's move goes around: the card, which at that angle hides a part of its thickness, or a point between it
# and the horizon, from where more of its back would show.
PIVOTS = {"card": None, "behind": (0.0, 0.0, 4.36)}
# Renders the end of the camera's move in each occlusion model, and measures the first frame; see `measured`.
BACKEND = """
import sys, numpy as np
from ex4d.cli.main import main
from ex4d.mesh import DepthSurface, build_surface_mesh
from ex4d.mesh.thickness import back_limits, pixel_angles
from ex4d_core.scene import Scene
import torch

folder, out = sys.argv[1:]
for pivot, at in (("card", []), ("behind", ["--pivot", "0,0,4.36"])):
    for model in ("watertight", "thickness", "open"):
        options = ["--preset", "orbit", *at, "--occlusion", model]
        options += ["--samples", "1", "--no-clean", "--no-remember"]
        assert main(["render", folder, *options, "--out", f"{out}/{pivot} {model}.npz"]) == 0
scene = Scene.open(folder)
arrays = (np.array(one[:1]) for one in (scene.depth(), scene.color()))
depth, color = map(torch.from_numpy, arrays)
lens = torch.from_numpy(scene.source_camera().intrinsics[:1].copy())
limits = back_limits(depth, pixel_angles(lens)).limits
mesh = build_surface_mesh(DepthSurface(depth, color, lens))
rows, columns = mesh.grid_shape
cells = mesh.occluded[0, : -mesh.cap_faces].reshape(2, rows - 1, columns - 1)[:, 1:-1, 1:-1]
np.savez(f"{out}/measured.npz", beyond=(limits / depth - 1)[0], occluded=cells)
"""


@pytest.fixture
def gpu_here() -> None:
    """Blender's GPU module, which works without a window from 5.2 on, where there is OpenGL."""
    if not hasattr(gpu, "init"):
        pytest.skip("this Blender draws only in windows")
    try:
        gpu.init()
    except (RuntimeError, SystemError) as error:
        pytest.skip(f"no OpenGL: {error}")


@pytest.fixture(scope="module")
def ground_scene(write_scene, tmp_path_factory) -> Path:
    """A card over ground that reaches the horizon, where its faces are thinner than EX-4D's rule lets them be."""
    return write_scene(tmp_path_factory.mktemp("scenes") / "ground", "9", "96", "64", "ground")


@pytest.fixture(scope="module")
def measured(ground_scene, backend_python, tmp_path_factory) -> Path:
    """A folder with what the backend renders and measures of the scene."""
    out = tmp_path_factory.mktemp("measured")
    subprocess.run([backend_python, "-c", BACKEND, str(ground_scene), str(out)], check=True, env=backend_environment())
    return out


@pytest.mark.parametrize(
    "shading, engine, expected",
    [
        ({"type": "SOLID", "color_type": "MATERIAL"}, EEVEE, COLORED),
        ({"type": "SOLID", "color_type": "TEXTURE"}, EEVEE, TEXTURED),
        ({"type": "SOLID", "color_type": "TEXTURE", "show_xray": True}, EEVEE, THROUGH),
        ({"type": "WIREFRAME"}, EEVEE, THROUGH),
        ({"type": "MATERIAL"}, "CYCLES", SHADED),
        ({"type": "MATERIAL", "show_xray": True}, "BLENDER_WORKBENCH", SHADED),
        ({"type": "RENDERED"}, EEVEE, SHADED),
        ({"type": "RENDERED"}, "CYCLES", SHADED),
        ({"type": "RENDERED", "color_type": "TEXTURE"}, "BLENDER_WORKBENCH", COLORED),
    ],
)
def test_every_shading_but_x_ray_and_wireframe_is_marked(shading, engine, expected):
    open_factory_file()
    space, scene = spaces()[0], bpy.context.scene
    if engine == "CYCLES":
        bpy.ops.preferences.addon_enable(module="cycles")
    scene.render.engine = engine
    # The X-ray of Solid view stays switched on where another shading does not have it.
    for name, value in (shading if shading["type"] == "SOLID" else {**shading, "type": "SOLID"}).items():
        setattr(space.shading, name, value)
    space.shading.type = shading["type"]
    assert look_of(space, scene) == expected


def test_workbench_renders_the_footage_if_its_own_settings_say_so():
    open_factory_file()
    space, scene = spaces()[0], bpy.context.scene
    scene.render.engine, space.shading.type = "BLENDER_WORKBENCH", "RENDERED"
    scene.display.shading.color_type = "TEXTURE"
    assert look_of(space, scene) == TEXTURED
    scene.display.shading.show_xray = True
    assert look_of(space, scene) == THROUGH


def look_from_the_moves_end(
    folder: Path, pivot: tuple[float, ...] | None = None
) -> tuple[bpy.types.Object, SimpleNamespace]:
    """An imported scene at the end of an orbit, and the context of a viewport that looks through its camera."""
    open_factory_file()
    for one in list(bpy.data.objects):
        bpy.data.objects.remove(one)
    imported = import_scene(folder)
    if pivot is not None:
        chosen = pivot_settings(imported)
        chosen.point, chosen.is_picked, chosen.kind = pivot, True, "POINT"
    assert bpy.ops.ex4d.add_camera(preset="orbit") == {"FINISHED"}
    scene = bpy.context.scene
    scene.frame_set(scene.frame_end)
    camera = scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    view = SimpleNamespace(
        view_matrix=camera.matrix_world.normalized().inverted(), is_perspective=True, view_perspective="CAMERA"
    )
    space = spaces()[0]
    space.camera, space.overlay.show_overlays = scene.camera, True
    return imported, SimpleNamespace(
        scene=scene,
        view_layer=bpy.context.view_layer,
        evaluated_depsgraph_get=bpy.context.evaluated_depsgraph_get,
        preferences=bpy.context.preferences,
        space_data=space,
        region_data=view,
    )


def picture(imported: bpy.types.Object, context: SimpleNamespace) -> np.ndarray:
    """(H, W, 4) in [0, 1], top row first: what the add-on draws over what Blender has drawn of the mesh.

    Blender's own part is gray here, and magenta where the scene's material has the unseen colour.
    """
    depsgraph = context.evaluated_depsgraph_get()
    camera = context.scene.camera.evaluated_get(depsgraph)
    projection = camera.calc_matrix_camera(depsgraph, x=SIZE[0], y=SIZE[1])
    view = context.region_data.view_matrix
    offscreen = gpu.types.GPUOffScreen(*SIZE)
    evaluated = imported.evaluated_get(depsgraph)
    batches = batches_of(imported, mesh_data(evaluated))
    assert batches is not None
    to_screen = projection @ view @ evaluated.matrix_world
    viewer = (evaluated.matrix_world.inverted() @ view.inverted()).to_4x4().translation.to_4d()
    # Without a window a picture is not bound again after another: the last time, all others are there already.
    for _ in range(4):
        with offscreen.bind(), gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            gpu.matrix.load_projection_matrix(projection)
            gpu.matrix.load_matrix(view)
            gpu.state.active_framebuffer_get().clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
            gpu.state.depth_test_set("LESS_EQUAL")
            gpu.state.depth_mask_set(True)
            gpu.state.blend_set("NONE")
            base = gpu.shader.from_builtin("UNIFORM_COLOR")
            base.bind()
            base.uniform_float("color", GRAY)
            with gpu.matrix.push_pop():
                gpu.matrix.multiply_matrix(evaluated.matrix_world)
                batches[0].draw(base)
            if look_of(context.space_data, context.scene).material:
                shader, eye = face_shader(STRETCHED, has_limits=False), tuple(evaluated[SOURCE_EYE])
                draw_batch(shader, batches[0], to_screen, eye, viewer, color=MAGENTA)
            gpu.state.depth_mask_set(False)
            unseen_areas._draw()
    pixels = np.array(offscreen.texture_color.read().to_list(), dtype=np.float32)
    return pixels.reshape(SIZE[1], SIZE[0], 4)[::-1] / 255


def is_magenta(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > 0.9) & (pixels[..., 1] < 0.1) & (pixels[..., 2] > 0.9)


def is_blue(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] < 0.1) & (pixels[..., 1] < 0.8) & (pixels[..., 2] > 0.9)


@pytest.mark.parametrize("pivot", PIVOTS)
@pytest.mark.parametrize("occlusion", OCCLUSIONS)
def test_all_shadings_mark_what_a_render_leaves_unseen(gpu_here, ground_scene, measured, monkeypatch, occlusion, pivot):
    imported, context = look_from_the_moves_end(ground_scene, PIVOTS[pivot])
    monkeypatch.setattr(unseen_areas, "current_context", lambda: context)
    shot = context.scene.ex4d_shot
    shot.occlusion, shot.memory = occlusion, "off"
    shading = context.space_data.shading
    pictures = {}
    for shading.type in ("SOLID", "MATERIAL"):
        pictures[shading.type] = picture(imported, context)
    with np.load(measured / f"{pivot} {occlusion}.npz") as rendered:
        expected = ~rendered["mask"][-1].astype(bool)

    unseen = is_magenta(pictures["SOLID"])
    assert unseen.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert (unseen != expected).mean() < 0.04
    assert (is_magenta(pictures["MATERIAL"]) == unseen).all()


def test_what_other_frames_saw_has_its_own_colour_in_all_shadings(gpu_here, moving_scene, monkeypatch):
    imported, context = look_from_the_moves_end(moving_scene)
    monkeypatch.setattr(unseen_areas, "current_context", lambda: context)
    shot, shading = context.scene.ex4d_shot, context.space_data.shading
    unseen, remembered = {}, {}
    for shading.type in ("SOLID", "MATERIAL"):
        shot.memory = "off"
        unseen[shading.type] = is_magenta(picture(imported, context))
        shot.memory = "on"
        remembered[shading.type] = is_blue(picture(imported, context))
    assert remembered["SOLID"].mean() > 0.01
    assert unseen["SOLID"][remembered["SOLID"]].all(), "only what is unseen now is remembered"
    assert (remembered["MATERIAL"] == remembered["SOLID"]).all()
    assert (unseen["MATERIAL"] == unseen["SOLID"]).all()


def test_what_other_frames_saw_moves_with_its_scene(gpu_here, moving_scene, monkeypatch):
    """Also in viewports whose own view stays."""
    imported, context = look_from_the_moves_end(moving_scene)
    monkeypatch.setattr(unseen_areas, "current_context", lambda: context)
    context.scene.ex4d_shot.memory = "on"
    before = picture(imported, context)
    imported.location.x += 0.1
    context.view_layer.update()
    moved = picture(imported, context)
    unseen_areas._known_pictures.clear()
    assert (picture(imported, context) == moved).all() and (moved != before).any()


def test_viewports_measure_silhouettes_and_planes_as_renders_do(gpu_here, ground_scene, measured):
    imported = import_scene(ground_scene)
    evaluated = imported.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert batches_of(imported, mesh_data(evaluated)) is not None
    positions = gpu_meshes[imported.session_uid].positions
    limits = measure(imported, positions, mathutils.Vector(imported[SOURCE_EYE]), "thickness")
    assert limits is not None
    found = np.array(limits.beyond.texture_color.read().to_list(), dtype=np.float32).reshape(*SIZE[::-1], 4)
    with np.load(measured / "measured.npz") as arrays:
        beyond, occluded = arrays["beyond"], arrays["occluded"]

    assert beyond.max() > 0.05
    # The image's edge ends surfaces, too. Distances at the picture's corners are not quite depths.
    close = np.isclose(found[..., 0], beyond, rtol=0.1, atol=0.005)
    assert close.mean() > 0.98
    flat_right, flat_below = found[..., 1] > 0.5, found[..., 2] > 0.5
    flat = np.stack([flat_right[:-1, :-1] & flat_below[:-1, :-1], flat_right[1:, :-1] & flat_below[:-1, 1:]])
    assert occluded.any() and not (flat & occluded).any()
    # On the right of the card; the last rows do not go on for 8 pixels.
    assert flat[:, SIZE[1] // 2 : -9, SIZE[0] // 2 :].all(), "the ground is whole up to its horizon"
