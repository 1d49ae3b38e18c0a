"""The backend's own image of the current frame, in an image datablock."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.connection.session import session
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scheduler import BUSY_INTERVAL_SECONDS, tick
from blender_addon.views.live_view import IMAGE, live_view, view_image
from ex4d_core.trajectories import Trajectory

from .conftest import tick_until


@pytest.fixture
def shot(card_scene) -> bpy.types.Object:
    """The card's scene at frame 11, seen by its source camera."""
    imported = import_scene(card_scene, ImportSettings(frame_start=11))
    bpy.context.scene.ex4d_shot.camera = imported.ex4d_scene.source_camera
    bpy.context.scene.frame_set(11)
    return imported


def pixels() -> np.ndarray:
    """(H, W, 3) of the view, 0 to 1, from the top."""
    image = view_image()
    width, height = image.size
    return np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, :3]


def test_the_current_frame_is_shown_as_the_backend_renders_it(connected, shot):
    assert bpy.ops.ex4d.show_view() == {"FINISHED"}
    tick_until(lambda: live_view.visible is not None, "the view")
    shown = pixels()
    assert shown.shape == (32, 48, 3) and live_view.visible == 1.0
    right, left = shown[2:6, 40:46, 1].mean(), shown[2:6, 2:8, 1].mean()
    assert right > left + 0.2, "the wall gets greener to the right"


def test_it_follows_frame_and_camera_while_it_is_live(connected, shot):
    bpy.context.scene.ex4d_view.live = True
    tick_until(lambda: live_view.visible is not None, "the first view")
    before = pixels()[2:6, 40:46, 0].mean()
    bpy.context.scene.frame_set(19)
    tick_until(lambda: pixels()[2:6, 40:46, 0].mean() > before + 0.2, "the wall of frame 19, which is redder")
    camera = camera_from_preset(shot, Trajectory("orbit", 60.0), name="arc")
    bpy.context.scene.ex4d_shot.camera = camera
    tick_until(lambda: live_view.visible < 0.99, "the view from aside")
    assert len([image for image in bpy.data.images if image.name.startswith(IMAGE)]) == 1


def test_a_tick_that_asks_is_followed_by_quick_ones(connected, shot):
    tick_until(lambda: session().connected, "the backend")
    bpy.context.scene.ex4d_view.live = True
    pause = 0.0
    for _ in range(100):  # the first one asks, unless this machine is too busy for all of a tick's work
        if not live_view.waiting:
            pause = tick()
    assert live_view.waiting and pause == BUSY_INTERVAL_SECONDS


def test_outside_the_footage_it_says_so(connected, shot):
    bpy.context.scene.frame_set(50)
    with pytest.raises(RuntimeError, match="frame 50"):
        bpy.ops.ex4d.show_view()
    bpy.context.scene.ex4d_view.live = True
    tick_until(lambda: "outside the footage" in live_view.problem, "the reason")
    bpy.context.scene.frame_set(12)
    tick_until(lambda: live_view.visible is not None, "the view, once there is footage")
    assert live_view.problem == ""


def test_without_a_scene_the_button_is_grey():
    assert not bpy.ops.ex4d.show_view.poll()
    assert not bpy.ops.ex4d.open_view.poll()
