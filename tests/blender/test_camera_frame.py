"""The camera's frame in a viewport is as large as the part that the sidebar leaves free."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import pytest

from blender_addon.scenes.camera_frame import _covered, _largest_factor


@pytest.mark.parametrize(
    ("fit", "resolution", "size", "frame_of_one"),
    [
        # Blender fits the sensor to the width or the height of the viewport, or to the larger of them.
        ("AUTO", (1920, 1080), (800, 400), (800, 450)),
        ("AUTO", (1080, 1920), (800, 400), (450, 800)),
        ("HORIZONTAL", (1080, 1920), (400, 800), (400, 711.1)),
        ("VERTICAL", (512, 512), (800, 400), (400, 400)),
    ],
)
def test_the_frame_fills_what_is_free(fit, resolution, size, frame_of_one):
    scene, camera = bpy.context.scene, bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit = fit
    scene.render.resolution_x, scene.render.resolution_y = resolution
    free = size[0] - 260, size[1] - 60
    factor = _largest_factor(free, size, camera, scene)
    width, height = (factor * side for side in frame_of_one)
    assert width <= free[0] * 1.001 and height <= free[1] * 1.001
    assert width == pytest.approx(free[0], rel=1e-3) or height == pytest.approx(free[1], rel=1e-3)


def test_only_a_sidebar_over_the_viewport_covers_it():
    window = SimpleNamespace(x=100, width=800)
    assert _covered(SimpleNamespace(x=640, width=260), window) == 260
    assert _covered(SimpleNamespace(x=900, width=260), window) == 0, "beside it, without Blender's Region Overlap"
    assert _covered(SimpleNamespace(x=899, width=1), window) == 0, "closed"
    assert _covered(None, window) == 0
