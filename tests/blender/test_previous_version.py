"""A .blend of version 0.1 opens with its scene, its shot and its jobs; see tests/data/previous_version/blend."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.footage.sources import plan_from_text
from blender_addon.jobs.tracker import is_paused
from blender_addon.paths import from_blend
from blender_addon.scenes.gpu_meshes import border_of
from blender_addon.scenes.link import open_scene, scene_objects
from blender_addon.scenes.mesh import mesh_data, read_attribute
from blender_addon.sequencer.edit_scenes import strip_in_file
from blender_addon.takes.requests import load_request

from .conftest import ROOT, fresh_blender, tick_round, tick_until
from .taking import is_followed
from .test_import_scene import render_frame


@pytest.fixture
def film(tmp_path) -> Path:
    """The file, opened with nothing around it changed."""
    folder = Path(shutil.copytree(ROOT / "tests" / "data" / "previous_version" / "blend", tmp_path / "film"))
    address = bpy.context.preferences.addons["blender_addon"].preferences.address
    fresh_blender()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    bpy.ops.wm.open_mainfile(filepath=str(folder / "film.blend"))
    return folder


def takes() -> list[bpy.types.PropertyGroup]:
    return list(bpy.context.scene.ex4d_takes)


def test_its_scene_shot_and_footage_are_there(film):
    (imported,) = scene_objects()
    assert open_scene(imported).manifest.frames == imported.ex4d_scene.frames == 4
    shot = bpy.context.scene.ex4d_shot
    assert (shot.label, shot.holes, tuple(shot.hole_color)) == ("walk by", "mark", (0.0, 1.0, 0.0))
    assert (shot.final.prompt, shot.final.seed) == ("a street in the rain", 7)
    assert shot.camera is not None and shot.camera == bpy.context.scene.camera
    assert from_blend(bpy.context.scene.ex4d_footage.footage) == film / "walk.mp4"
    assert bpy.context.scene.ex4d_footage.use_fov


def test_its_mesh_with_walls_and_caps_still_shows_what_is_unseen(film, tmp_path):
    (imported,) = scene_objects()
    corners = np.empty(len(mesh_data(imported).loops), np.int32)
    read_attribute(mesh_data(imported), ".corner_vert", "value", corners)
    border = {tuple(edge) for edge in border_of(corners.reshape(-1, 3)).tolist()}
    assert {(column, column + 1) for column in range(37)} <= border, "a line runs around its outermost vertices"
    blender_scene, source = bpy.context.scene, imported.ex4d_scene.source_camera
    blender_scene.camera, blender_scene.view_settings.view_transform = source, "Standard"
    blender_scene.render.use_sequencer = False  # version 0.1 put takes into the scene itself
    imported.ex4d_scene.unseen_color = (0.0, 1.0, 0.0)

    def green_share(frame: int) -> float:
        rendered = render_frame(frame, tmp_path / "render.png")
        return float((np.abs(rendered - (0, 255, 0)).max(axis=-1) < 12).mean())

    assert green_share(3) == 0.0
    source.delta_location = (1.0, 0, 0)
    assert green_share(3) > 0.02


def test_its_takes_are_as_they_were(film):
    done, queued, unsent = takes()
    assert [take.label for take in takes()] == ["walk by"] * 3
    assert [(take.version, take.engine, take.frames, take.frame_start) for take in takes()] == [
        (version, "preview", 4, 1) for version in (1, 3, 4)
    ]
    assert [take.shot for take in takes()] == [bpy.context.scene.ex4d_shot.key] * 3
    assert (done.state, done.progress, is_followed(done)) == ("done", 1.0, False)
    assert strip_in_file(done.key).type == "MOVIE"
    assert (queued.state, unsent.state) == ("queued", "sending")
    assert not is_followed(queued) and not is_followed(unsent), "it does not say where they were started"
    assert is_paused(queued) and is_paused(unsent) and not is_paused(done)
    assert [load_request(from_blend(take.folder)).label for take in takes()] == ["walk by"] * 3
    tick_round()
    assert (queued.state, unsent.state) == ("queued", "sending"), "as long as no backend answers"


def test_its_reconstructions_are_as_they_were_and_one_says_why_it_cannot_be_resumed(film):
    imported, stopped = bpy.context.scene.ex4d_reconstructions
    assert (imported.state, imported.label) == ("imported", "walk")
    assert is_paused(stopped) and not is_paused(imported)
    assert bpy.ops.ex4d.resume_reconstruction(key=stopped.key) == {"FINISHED"}
    assert stopped.state == "stopped" and "/tmp/film/walk.mp4" in stopped.reason
    renamed = stopped.plan.replace("/tmp/film/", f"{film.as_posix()}/")
    assert plan_from_text(renamed).settings.depth.layout == "array"


def test_a_take_that_was_never_sent_is_sent_by_resume_and_a_lost_one_says_so_and_can_be_retried(connected, film):
    _, queued, unsent = takes()
    for entry in (queued, unsent):
        assert bpy.ops.ex4d.resume_take(key=entry.key) == {"FINISHED"}
    tick_until(lambda: unsent.state == "done" and queued.state == "stopped", "both takes")
    assert strip_in_file(unsent.key).type == "MOVIE"
    assert queued.job in queued.reason
    assert bpy.ops.ex4d.retry_take(key=queued.key) == {"FINISHED"}
    tick_until(lambda: queued.state == "done", "the take that was retried")
    assert strip_in_file(queued.key).type == "MOVIE"


def test_its_interrupted_reconstruction_resumes_when_its_files_are_back(connected, film):
    _, stopped = bpy.context.scene.ex4d_reconstructions
    stopped.plan = stopped.plan.replace("/tmp/film/", f"{film.as_posix()}/")
    assert bpy.ops.ex4d.resume_reconstruction(key=stopped.key) == {"FINISHED"}
    tick_until(lambda: stopped.state == "imported", "the scene")
    assert len(scene_objects()) == 2
