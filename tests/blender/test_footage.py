"""Footage picked in Blender becomes an imported scene, made by a real backend process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from blender_addon import scheduler as scheduler_module
from blender_addon.connection.session import session
from blender_addon.footage.panel import EX4D_PT_footage_options
from blender_addon.footage.scene_jobs import import_finished
from blender_addon.footage.sources import FootageError, plan_from_text, plan_of, plan_to_text
from blender_addon.jobs.progress import progress_text
from blender_addon.paths import from_blend
from blender_addon.scenes.link import open_scene, scene_objects
from ex4d_core.messages import command_in
from ex4d_core.scene import Scene
from ex4d_core.sources import MistPass

from .conftest import backend_environment, backend_process, free_address, fresh_blender, tick_round, tick_until
from .drawn import Drawn
from .taking import is_followed

_WRITE_CLIP = """
import sys, numpy as np
from fractions import Fraction
from pathlib import Path
from ex4d.media import VideoWriter
folder, frames, size = Path(sys.argv[1]), 7, (32, 48)
depth = np.full((frames, *size), 4.0, np.float32)
depth[:, 8:16, 12:20] = 2.0
np.savez(folder / "walk_depth.npz", depth=depth)
with VideoWriter(folder / "walk.mp4", size[1], size[0], Fraction(25)) as movie:
    for index in range(frames):
        movie.write(np.full((*size, 3), 30 * index, np.uint8))
"""


@pytest.fixture(scope="session")
def clip(backend_python, tmp_path_factory) -> Path:
    """A folder with walk.mp4, 7 frames of 48x32 at 25 fps, and walk_depth.npz."""
    folder = tmp_path_factory.mktemp("clip")
    subprocess.run([backend_python, "-c", _WRITE_CLIP, str(folder)], check=True, env=backend_environment())
    return folder


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "film.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def entry() -> bpy.types.PropertyGroup:
    return bpy.context.scene.ex4d_reconstructions[-1]


def pick(clip: Path, **settings) -> None:
    assert bpy.ops.ex4d.pick_footage(filepath=str(clip / "walk.mp4")) == {"FINISHED"}
    for name, value in settings.items():
        setattr(bpy.context.scene.ex4d_footage, name, value)


def reconstruct() -> bpy.types.PropertyGroup:
    assert bpy.ops.ex4d.reconstruct() == {"FINISHED"}
    return entry()


def tick_until_over() -> None:
    tick_until(lambda: entry().state in ("done", "failed", "cancelled", "stopped"), "the reconstruction")


def test_a_picked_video_becomes_an_imported_scene(connected, saved, clip, tmp_path):
    pick(clip, use_fov=True, fov=np.radians(60.0))
    assert bpy.context.scene.ex4d_footage.depth.endswith("walk_depth.npz"), "depth beside the video is found"
    reconstruct()
    tick_until_over()
    assert entry().state == "done", entry().reason
    import_finished()

    assert entry().state == "imported" and not is_followed(entry())
    (imported,) = scene_objects()
    assert imported.ex4d_scene.folder == "//scenes/walk_1"
    manifest = open_scene(imported).manifest
    assert (manifest.frames, manifest.width, manifest.height, manifest.fps) == (7, 48, 32, 25)
    render = bpy.context.scene.render
    assert (bpy.context.scene.frame_end, render.fps, render.resolution_x) == (7, 25, 48)
    assert bpy.context.scene.camera == imported.ex4d_scene.source_camera
    assert bpy.context.scene.ex4d_shot.scene_object == imported
    assert sorted(path.name for path in (tmp_path / "scenes").iterdir()) == ["walk_1"]


def test_a_scene_that_arrives_during_a_transform_is_imported_at_its_end(connected, saved, clip, monkeypatch):
    dragging = "Waits for the end of: Move"
    monkeypatch.setattr(scheduler_module, "reason_to_wait", lambda: dragging)
    pick(clip)
    reconstruct()
    tick_until_over()
    tick_round()
    assert entry().state == "done" and not scene_objects(), "or cancelling the transform would not undo only that"
    dragging = ""
    tick_round()
    assert entry().state == "imported" and len(scene_objects()) == 1


def test_depth_beside_the_footage_is_found_however_it_is_chosen(saved, clip, tmp_path):
    settings = bpy.context.scene.ex4d_footage
    settings.footage = str(clip / "walk.mp4")  # by its field
    assert from_blend(settings.depth) == clip / "walk_depth.npz" and settings.depth_from == "FILES"
    settings.depth = chosen = str(tmp_path / "better.npz")
    settings.footage = str(clip / "walk.mp4")
    assert settings.depth == chosen, "which the artist chose"


def test_a_second_scene_of_the_same_footage_sends_nothing(connected, saved, clip):
    for number in (1, 2):
        pick(clip)
        reconstruct()
        tick_until_over()
        assert entry().state == "done" and entry().folder == f"//scenes/walk_{number}"
        import_finished()
    assert len(scene_objects()) == 2


def test_a_movie_clip_or_a_movie_strip_of_the_file_serves_as_footage(saved, clip):
    settings = bpy.context.scene.ex4d_footage
    settings.clip = bpy.data.movieclips.load(str(clip / "walk.mp4"))
    assert from_blend(settings.footage) == clip / "walk.mp4"
    settings.footage = ""
    assert not bpy.ops.ex4d.use_movie_strip.poll()
    editor = bpy.context.scene.sequence_editor_create()
    strips = editor.strips if bpy.app.version >= (4, 4, 0) else editor.sequences
    editor.active_strip = strips.new_movie("walk", str(clip / "walk.mp4"), 1, 1)
    assert bpy.ops.ex4d.use_movie_strip() == {"FINISHED"}
    assert from_blend(settings.footage) == clip / "walk.mp4"


def test_without_that_estimator_the_backends_own_words_reach_the_artist(connected, saved, clip, tmp_path):
    pick(clip, depth_from="ESTIMATOR", estimator="best")
    reconstruct()
    tick_until_over()
    assert entry().state == "failed" and "estimator 'best'" in entry().reason
    assert not any((tmp_path / "scenes").iterdir())
    assert bpy.ops.ex4d.forget_reconstruction(key=entry().key) == {"FINISHED"}
    assert not bpy.context.scene.ex4d_reconstructions


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"depth": "/nowhere/depth.npz"}, "/nowhere/depth.npz does not exist"),
        ({"footage": "/nowhere/film.mp4"}, "/nowhere/film.mp4 does not exist"),
        ({"footage": __file__}, "test_footage.py is not a known video"),
        ({"depth": __file__}, "test_footage.py is not depth"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_once(saved, clip, settings, says):
    pick(clip, **settings)
    with pytest.raises(RuntimeError, match=says):
        bpy.ops.ex4d.reconstruct()
    assert not bpy.context.scene.ex4d_reconstructions


def test_what_is_missing_greys_the_button_out(saved, clip):
    assert not bpy.ops.ex4d.reconstruct.poll()
    pick(clip)
    assert bpy.ops.ex4d.reconstruct.poll()
    bpy.context.scene.ex4d_footage.depth = ""
    assert not bpy.ops.ex4d.reconstruct.poll()


def test_chosen_files_are_found_when_the_file_is_saved_elsewhere(saved, clip, tmp_path):
    settings = bpy.context.scene.ex4d_footage
    pick(clip, camera=f"//{os.path.relpath(clip, tmp_path)}/transforms.json")
    before = plan_files(settings)
    assert before[0] == clip / "walk.mp4" and settings.footage.startswith("//")
    (tmp_path / "one" / "deeper").mkdir(parents=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one" / "deeper" / "film.blend"))
    assert plan_files(settings) == before


def plan_files(settings: bpy.types.PropertyGroup) -> list[Path]:
    return [from_blend(path) for path in (settings.footage, settings.depth, settings.camera)]


def test_depth_images_keep_the_order_of_their_numbers(saved, clip, tmp_path):
    folder = tmp_path / "z"
    folder.mkdir()
    for number in (1, 2, 10):
        (folder / f"z_{number}.exr").write_bytes(b"exr")
    pick(clip, depth=str(folder / "z_2.exr"))
    plan = plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    assert plan.settings.depth.layout == "exr" and [path.stem for path in plan.depth_files] == ["z_1", "z_2", "z_10"]


def test_what_the_depth_files_hold_is_sent(saved, clip):
    pick(clip)
    settings = bpy.context.scene.ex4d_footage
    assert plan_of(settings, bpy.context.scene).settings.depth.values == "auto"
    settings.values = "distance"
    assert plan_of(settings, bpy.context.scene).settings.depth.values == "distance"
    settings.values, settings.inverse, settings.use_scale = "disparity", True, True
    plan = plan_of(settings, bpy.context.scene)
    sent = plan.settings.depth
    assert (sent.values, sent.inverse, sent.scale) == ("disparity", False, None), "which the panel does not offer then"
    assert plan_from_text(plan_to_text(plan)) == plan
    settings.depth_from = "ESTIMATOR"
    assert plan_of(settings, bpy.context.scene).settings.depth.values == "auto"


def test_a_depth_video_is_sent_as_one(saved, clip):
    pick(clip, depth=str(clip / "walk.mp4"), values="disparity")
    plan = plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    assert plan.settings.depth.layout == "video" and [path.name for path in plan.depth_files] == ["walk.mp4"]


@pytest.fixture
def mist_files(tmp_path) -> Path:
    """A folder with the names of a render's mist pass."""
    folder = tmp_path / "mist"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"mist_{number}.exr").write_bytes(b"exr")
    return folder


def test_a_mist_pass_is_sent_with_the_worlds_settings(saved, clip, mist_files):
    pick(clip, depth=str(mist_files), use_mist=True, mist_start=2.0, mist_depth=20.0, use_fov=True, inverse=True)
    plan = plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    # Blender's own falloff for a new world.
    assert plan.settings.depth.mist == MistPass(2.0, 20.0, "quadratic")
    assert not plan.settings.depth.inverse, "which the panel does not offer beside mist"
    assert plan_from_text(plan_to_text(plan)) == plan


def test_a_mist_pass_wants_its_lens_and_its_files(saved, clip, mist_files):
    pick(clip, use_mist=True, use_fov=True)
    with pytest.raises(FootageError, match="folder of EXR"):
        plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    pick(clip, depth=str(mist_files), use_fov=False)
    with pytest.raises(FootageError, match="set Custom Lens"):
        plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)


def test_each_file_of_a_colmap_model_or_its_folder_means_all(saved, clip, tmp_path):
    settings, model = bpy.context.scene.ex4d_footage, tmp_path / "sparse"
    model.mkdir()
    for name in ("cameras.txt", "images.txt", "points3D.txt"):
        (model / name).write_text("1")
    pick(clip, camera_scale=0.5)
    files = (model / "cameras.txt", model / "images.txt", model / "points3D.txt")
    for chosen in (model, *files):
        settings.camera = str(chosen)
        plan = plan_of(settings, bpy.context.scene)
        assert plan.camera_files == files and plan.settings.camera_scale == 0.5
        assert plan_from_text(plan_to_text(plan)) == plan
    files[2].unlink()
    settings.camera = str(model)
    assert plan_of(settings, bpy.context.scene).camera_files == files[:2], "points are optional"
    settings.camera = str(tmp_path)
    assert plan_of(settings, bpy.context.scene).camera_files == files[:2], "of a project's folder its model"
    for wrong in (model / "points3D.txt", tmp_path / "nowhere.npz", tmp_path.parent):
        settings.camera = str(wrong)
        with pytest.raises(FootageError, match=r"choose an \.npz"):
            plan_of(settings, bpy.context.scene)


def test_the_estimators_camera_is_taken_unless_it_is_switched_off(saved, clip, tmp_path):
    settings = bpy.context.scene.ex4d_footage

    def motion() -> str:
        return plan_of(settings, bpy.context.scene).settings.camera_motion

    pick(clip, depth_from="ESTIMATOR")
    assert motion() == "auto"
    settings.use_poses = False
    assert motion() == "still"
    plan = plan_of(settings, bpy.context.scene)
    assert plan_from_text(plan_to_text(plan)) == plan
    settings.camera = str(tmp_path / "solved.npz")
    (tmp_path / "solved.npz").write_bytes(b"1")
    assert motion() == "auto", "a file goes first"


def test_a_camera_that_the_backend_solves_for_has_no_file(saved, clip):
    pick(clip, camera_from="SOLVE", camera=str(clip / "transforms.json"))
    plan = plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    assert plan.settings.camera_motion == "solve" and not plan.camera_files
    assert plan.settings.fov_degrees is None, "it finds the lens, too"
    pick(clip, camera_from="SOLVE", use_fov=True)
    assert plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene).settings.fov_degrees == pytest.approx(50, abs=1)
    assert plan_from_text(plan_to_text(plan)) == plan


def test_a_clip_whose_camera_cannot_be_solved_says_why(connected, saved, clip):
    """Its frames are plain grey; a backend without the solver says so before, too, with the command that helps."""
    pick(clip, camera_from="SOLVE")
    reconstruct()
    tick_until_over()
    assert entry().state == "failed" and "camera" in entry().reason
    tick_until(lambda: bool(session().server.engines), "what the backend can do")
    lacking = session().server.lacking.get("solve", "")
    assert command_in(lacking) == command_in(entry().reason)
    drawn = Drawn()
    system, region = SimpleNamespace(ui_scale=1.0), SimpleNamespace(width=300)
    shown = SimpleNamespace(scene=bpy.context.scene, preferences=SimpleNamespace(system=system), region=region)
    EX4D_PT_footage_options.draw(SimpleNamespace(layout=drawn), shown)
    assert bool(lacking) == ("Copy Command" in drawn.texts)


def test_a_reconstruction_that_an_older_add_on_began_is_understood(saved, clip):
    pick(clip)
    plan = plan_of(bpy.context.scene.ex4d_footage, bpy.context.scene)
    old = {
        "footage": [str(clip / "walk.mp4")],
        "depth_files": [str(clip / "walk_depth.npz")],
        **{"layout": "array", "name": "walk", "estimator": "", "scale": None, "inverse": False, "invalid": "far"},
        **{"licence": "commercial", "fps": None, "fov_degrees": None, "convention": "centered"},
    }
    assert plan_from_text(json.dumps(old)) == plan


def test_cancelled_before_a_backend_answers(saved, clip, tmp_path):
    pick(clip)
    key = reconstruct().key
    tick_round()
    assert bpy.ops.ex4d.cancel_reconstruction(key=key) == {"FINISHED"}
    assert entry().state == "cancelled" and not is_followed(entry())
    assert not any((tmp_path / "scenes").iterdir())


def test_the_panel_says_that_it_waits_for_the_backend(backend_python, saved, clip, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    with backend_process(backend_python, address, tmp_path / "backend"):
        pick(clip)
        key = reconstruct().key
        tick_until(lambda: entry().job, "the backend has taken it")
    tick_until(lambda: not session().connected, "the backend is missed")
    assert progress_text(entry()) == f"waiting for the backend {entry().progress:.0%}"
    assert bpy.ops.ex4d.cancel_reconstruction(key=key) == {"FINISHED"}
    assert entry().cancelling
    assert progress_text(entry()) == "cancelling"
    with backend_process(backend_python, address, tmp_path / "backend"):
        tick_until(lambda: not is_followed(entry()), "the backend hears of it")
    assert entry().state in ("cancelled", "done") and not entry().cancelling


def test_footage_that_is_gone_when_the_file_is_reopened_is_named(connected, saved, clip, tmp_path):
    bpy.context.preferences.addons["blender_addon"].preferences.address = free_address()
    movie = tmp_path / "walk.mp4"
    movie.write_bytes((clip / "walk.mp4").read_bytes())
    pick(clip)
    bpy.context.scene.ex4d_footage.footage = str(movie)
    reconstruct()
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    movie.unlink()
    bpy.ops.wm.open_mainfile(filepath=str(saved))
    tick_until_over()
    assert entry().state == "stopped"
    assert entry().reason.startswith(f"{movie} is missing")
    movie.write_bytes((clip / "walk.mp4").read_bytes())
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    assert bpy.ops.ex4d.resume_reconstruction(key=entry().key) == {"FINISHED"}
    tick_until_over()
    assert entry().state == "done", entry().reason


def test_a_file_closed_meanwhile_gets_its_scene_when_it_is_opened_again(backend_python, saved, clip, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    pick(clip)
    reconstruct()
    tick_round()
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    with backend_process(backend_python, address, tmp_path / "backend"):
        bpy.ops.wm.open_mainfile(filepath=str(saved))
        tick_until_over()
        assert entry().state == "done", entry().reason
        import_finished()
    assert Scene.open(tmp_path / "scenes" / "walk_1").digest == scene_objects()[0].ex4d_scene.digest


def test_undo_loses_no_reconstruction_and_an_undone_import_can_be_repeated(connected, saved, clip):
    pick(clip)
    bpy.ops.ed.undo_push(message="picked")
    bpy.data.objects.new("something", None)
    key = reconstruct().key
    bpy.ops.ed.undo_push(message="something")
    bpy.ops.ed.undo()
    assert not bpy.context.scene.ex4d_reconstructions
    tick_until(lambda: len(bpy.context.scene.ex4d_reconstructions) == 1, "the reconstruction to be listed again")
    tick_until_over()
    assert (entry().key, entry().state) == (key, "done")
    bpy.ops.ed.undo_push(message="before the import")
    import_finished()
    assert entry().state == "imported" and len(scene_objects()) == 1
    bpy.ops.ed.undo()
    for _ in range(3):
        tick_round()
    assert (entry().state, len(scene_objects())) == ("stopped", 0)
    assert entry().reason == "its import was undone; Resume imports it again"
    assert bpy.ops.ex4d.resume_reconstruction(key=key) == {"FINISHED"}
    tick_until_over()
    import_finished()
    assert (entry().state, len(scene_objects())) == ("imported", 1)
