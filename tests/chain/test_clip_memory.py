"""The clip's memory: holes of a frame show what other frames saw there, unless it moved, and never across a cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.generation.preview import REMEMBERED_COLOR
from ex4d.media import read_frames
from ex4d.pipeline.clip_memory import ClipMemory, spread_frames
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.take_folder import read_take, take_into_folder
from ex4d.pipeline.view import SceneViews
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import PreviewSettings, ShotRequest
from tests.chain.ball_clip import BALL, FRAMES, HEIGHT, LENS, WIDTH, beside, filmed, standing, travelling, written

THICKNESS = RenderSettings(occlusion="thickness", remember=True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """A static scene, filmed by a camera that moves."""
    camera = travelling()
    return written(tmp_path_factory.mktemp("static") / "scene", camera, [filmed(p) for p in camera.world_to_camera])


def test_holes_show_what_other_frames_saw(scene):
    camera = beside(scene, 3)
    (plain,) = render_shot(scene, camera, replace(THICKNESS, remember=False), first_frame=3, device="cpu")
    (frame,) = render_shot(scene, camera, THICKNESS, first_frame=3, device="cpu")
    truth, depth = filmed(camera.world_to_camera[0])
    assert plain.remembered is None and frame.remembered is not None
    # What the frame sees itself stays as it is, and its mask says so.
    np.testing.assert_array_equal(frame.mask, plain.mask)
    (drawn,) = render_shot(scene, camera, replace(THICKNESS, remember=False, clean=False), first_frame=3, device="cpu")
    own = plain.mask & drawn.mask  # what is seen only since the mask is held steady has the clip's colours
    np.testing.assert_array_equal(frame.color[own], plain.color[own])
    assert not (frame.remembered & frame.mask).any() and not frame.color[~frame.known & (frame.soft_mask == 0)].any()
    inside = frame.remembered & (depth > 5)  # the wall that the ball hid, not the ball's own rim
    assert frame.remembered.sum() > 0.3 * (~plain.mask).sum() and inside.sum() > 0.9 * frame.remembered.sum()
    assert np.median(np.abs(frame.color[inside].astype(int) - truth[inside])) <= 3
    assert np.abs(frame.depth[inside] / depth[inside] - 1).mean() < 0.02


def test_what_is_remembered_lies_behind_soft_edges(scene):
    camera = beside(scene, 3)
    settings = replace(THICKNESS, clean=False)
    (plain,) = render_shot(scene, camera, replace(settings, remember=False), first_frame=3, device="cpu")
    (frame,) = render_shot(scene, camera, settings, first_frame=3, device="cpu")
    np.testing.assert_array_equal(frame.soft_mask, plain.soft_mask)
    truth, depth = filmed(camera.world_to_camera[0])
    edge = frame.remembered & (frame.soft_mask > 0) & (depth > 5)
    assert edge.sum() >= 10 and frame.whole[edge].all()
    share = frame.soft_mask[edge][:, None] / 255
    blended = share * plain.color[edge] + (1 - share) * truth[edge]
    error, unblended = (np.abs(frame.color[edge] - colors).mean() for colors in (blended, truth[edge].astype(int)))
    assert error < 0.5 * unblended, (error, unblended)


@pytest.mark.parametrize("model", ["watertight", "open"])
def test_it_works_with_any_occlusion_model(scene, model):
    settings = RenderSettings(occlusion=model, remember=True)
    (frame,) = render_shot(scene, beside(scene, 3), settings, first_frame=3, device="cpu")
    truth, depth = filmed(beside(scene, 3).world_to_camera[0])
    inside = frame.remembered & (depth > 5)
    assert inside.sum() > 0.2 * (~frame.mask).sum()
    assert np.median(np.abs(frame.color[inside].astype(int) - truth[inside])) <= 3


def test_a_moving_subject_does_not_stay_where_it_was(tmp_path):
    """The camera stands still and a ball crosses the picture: it uncovers the wall, and never shows up twice."""
    camera = standing()
    balls = [BALL + np.array([3.2 * (k / (FRAMES - 1) - 0.5), 0, 0]) for k in range(FRAMES)]
    images = [filmed(np.eye(4), ball) for ball in balls]
    scene = written(tmp_path / "scene", camera, images)
    view = beside(scene, 6, 0.5)
    (frame,) = render_shot(scene, view, THICKNESS, first_frame=6, device="cpu")
    own, held = (
        next(render_shot(scene, view, replace(THICKNESS, remember=False, clean=clean), first_frame=6, device="cpu"))
        for clean in (False, True)
    )
    truth, depth = filmed(view.world_to_camera[0], balls[6])
    # What the frame sees only since its mask is held steady has the clip's colours, too.
    np.testing.assert_array_equal(frame.mask, held.mask)
    steadied = frame.mask & ~own.mask & (depth > 5)
    errors = [np.abs(image.color[steadied].astype(int) - truth[steadied]).mean() for image in (frame, held)]
    assert errors[0] < 0.7 * errors[1], errors
    wall = (frame.remembered & (depth > 5)) | steadied
    assert wall.sum() > 100 and np.median(np.abs(frame.color[wall].astype(int) - truth[wall])) <= 3
    red = (frame.color[..., 0] > 200) & (frame.color[..., 1] < 60) & (frame.color[..., 2] < 60)
    assert not (red & frame.remembered).any()


def test_memory_never_crosses_a_cut(scene, tmp_path):
    """The same wall in other colours after a cut, whose frames alone would fill the hole."""
    camera = travelling(24)
    poses = camera.world_to_camera
    # Before the cut the camera stands where it is for the view; after it, it travels.
    poses = np.concatenate([np.repeat(poses[12:13], 12, axis=0), poses[12:]])
    images = [filmed(pose, shift=0.0 if k < 12 else 2.5) for k, pose in enumerate(poses)]
    images[12:] = [(255 - image, depth) for image, depth in images[12:]]
    cut = written(tmp_path / "scene", CameraPath(poses, LENS, WIDTH, HEIGHT), images)
    view = beside(cut, 3, -0.4)
    (frame,) = render_shot(cut, view, THICKNESS, first_frame=3, device="cpu")
    wall = 5  # units away: farther than the ball, whose own edge all frames know
    assert (~frame.mask).sum() > 100 and not (frame.depth[frame.remembered] > wall).any()
    (after,) = render_shot(cut, beside(cut, 14, -0.4), THICKNESS, first_frame=14, device="cpu")
    assert (after.depth[after.remembered] > wall).any()


def test_a_pose_that_contradicts_depth_is_named_and_left_out(scene, tmp_path):
    camera = travelling()
    images = [filmed(pose) for pose in camera.world_to_camera]
    poses = camera.world_to_camera.copy()
    poses[-1, 2, 3] += 3.0  # three units behind where it was
    wrong = written(tmp_path / "scene", CameraPath(poses, LENS, WIDTH, HEIGHT), images)
    notes: list[str] = []
    (frame,) = render_shot(wrong, beside(wrong, 3), THICKNESS, first_frame=3, device="cpu", note=notes.append)
    (right,) = render_shot(scene, beside(scene, 3), THICKNESS, first_frame=3, device="cpu")
    assert len(notes) == 1 and f"frame {FRAMES - 1} contradicts" in notes[0]
    assert frame.remembered.sum() > 0.8 * right.remembered.sum()


def test_a_subject_that_fills_the_frame_is_not_remembered(tmp_path):
    """Another picture in every frame, at the same depth: nothing stands still, so nothing is known."""
    random = np.random.default_rng(0)
    depth = np.full((HEIGHT, WIDTH), 4.0, np.float32)
    depth[20:40, 30:60] = 2.0
    images = [(random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), depth) for _ in range(6)]
    scene = written(tmp_path / "scene", standing(6), images)
    (frame,) = render_shot(scene, beside(scene, 2), THICKNESS, first_frame=2, device="cpu")
    assert (~frame.mask).any() and not frame.remembered.any()


def test_frames_do_not_depend_on_the_rest_of_the_shot(scene):
    camera = CameraPath(np.concatenate([beside(scene, k).world_to_camera for k in range(5)]), LENS, WIDTH, HEIGHT)
    together = list(render_shot(scene, camera, THICKNESS, device="cpu"))
    (alone,) = render_shot(scene, camera.frames(4, 5), THICKNESS, first_frame=4, device="cpu")
    for name in ("color", "mask", "depth", "remembered"):
        np.testing.assert_array_equal(getattr(together[4], name), getattr(alone, name))


def test_key_frames_are_spread_and_their_number_is_bounded():
    camera = travelling(200)
    chosen = spread_frames(camera, range(50, 200), 5.0, 8)
    assert len(chosen) == 8 and chosen[0] == 50 and chosen[-1] == 199
    assert np.diff(chosen).max() < 60
    assert spread_frames(camera, range(3, 5), 5.0, 8) == [3, 4]


def test_preview_remembers_unless_told_otherwise_and_wan_does_not(scene):
    shot = ShotRequest(scene.digest, beside(scene, 3), first_frame=3)
    assert shot.settled_render.remember and not replace(shot, engine="wan").settled_render.remember
    assert "remember" not in shot.to_wire()["render"]  # which older backends refuse
    never = replace(shot, render=RenderSettings(remember=False))
    assert not never.settled_render.remember
    assert ShotRequest.from_wire(never.to_wire()).render == never.render
    with pytest.raises(RequestError, match="remember does not exist in the reference convention"):
        RenderSettings(convention="reference", remember=True)
    reference = replace(shot, render=RenderSettings(convention="reference"))
    assert not reference.settled_render.remember


def test_a_take_has_a_movie_of_what_it_remembers(scene, tmp_path):
    settings = RenderSettings(occlusion="thickness")
    shot = ShotRequest(scene.digest, beside(scene, 3), first_frame=3, render=settings)
    take_into_folder(scene, shot, tmp_path / "with", device="cpu")
    take_into_folder(scene, replace(shot, render=replace(settings, remember=False)), tmp_path / "without", device="cpu")
    (frame,) = render_shot(scene, shot.camera, THICKNESS, first_frame=3, device="cpu")
    (movie,) = read_frames(tmp_path / "with" / "remembered.mp4")
    assert ((movie[..., 0] > 127) == frame.remembered).mean() > 0.98
    assert not (tmp_path / "without" / "remembered.mp4").exists()
    truth = filmed(shot.camera.world_to_camera[0])[0].astype(int)
    errors = [
        np.abs(read_take(other, tmp_path / name).frames[0] - truth)[frame.remembered].mean()
        for other, name in ((shot, "with"), (replace(shot, render=replace(settings, remember=False)), "without"))
    ]
    assert errors[0] < 0.4 * errors[1]


def test_the_command_and_the_library_remember_where_they_are_told_to(scene, tmp_path):
    views = ex4d.render(scene, beside(scene, 3), first_frame=3, occlusion="thickness", remember=True, device="cpu")
    assert views.remembered is not None and views.remembered.any()
    beside(scene, 3).save(tmp_path / "camera.npz")
    command = ["render", str(scene.path("color").parent), "--camera", str(tmp_path / "camera.npz"), "--first-frame"]
    command += ["3", "--occlusion", "thickness", "--device", "cpu"]
    assert main([*command, "--remember", "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["remembered"], views.remembered)
    assert main([*command, "--remember", "-o", str(tmp_path / "movies")]) == 0
    assert (tmp_path / "movies" / "remembered_camera.mp4").is_file()
    assert main([*command, "-o", str(tmp_path / "plain.npz")]) == 0
    with np.load(tmp_path / "plain.npz") as arrays:
        assert "remembered" not in arrays


def test_a_view_shows_what_the_clip_knows(scene):
    settings = RenderSettings(occlusion="thickness", samples=1, clean=False)  # views have one, and are not held steady
    shot = ShotRequest(scene.digest, beside(scene, 3), first_frame=3, render=settings)
    shot = replace(shot, preview=PreviewSettings(holes="mark"))
    shown = SceneViews(scene, device="cpu").look(shot)
    (frame,) = render_shot(scene, shot.camera, replace(settings, remember=True), first_frame=3, device="cpu")
    assert shown.seen == frame.mask.mean() and shown.remembered == frame.remembered.mean()
    np.testing.assert_array_equal(shown.image[frame.mask], frame.color[frame.mask])
    # All three states can be told apart: what is remembered is tinted.
    tinted = frame.color[frame.remembered] // 2 + np.array(REMEMBERED_COLOR, np.uint8) // 2
    np.testing.assert_array_equal(shown.image[frame.remembered], tinted)
    assert (shown.image[~frame.known] == [255, 0, 255]).all()


def test_shares_of_all_frames_at_once_are_those_of_each_picture(scene):
    path = CameraPath(np.concatenate([beside(scene, k).world_to_camera for k in range(5)]), LENS, WIDTH, HEIGHT)
    small, shown = path.resized(64, 48), [0, 1, 2, 3, 4]
    memory = ClipMemory(scene, THICKNESS, device="cpu", reduced=2)
    shares = memory.shares(small, shown)
    for k in shown:
        one = memory.render(small.frames(k, k + 1), [k])
        assert one.remembered is not None
        assert shares[k] == one.remembered.sum().item() / (~one.mask).sum().item()
    assert shares.max() > 0.1


def test_coverage_tells_what_the_clip_knows_from_what_a_frame_sees(scene):
    path = CameraPath(np.concatenate([beside(scene, k).world_to_camera for k in range(5)]), LENS, WIDTH, HEIGHT)
    shot = ShotRequest(scene.digest, path, render=RenderSettings(occlusion="thickness"))
    coverage = SceneCoverage(scene, device="cpu")
    found = coverage.of(shot)
    frames = list(render_shot(scene, path, THICKNESS, device="cpu"))
    np.testing.assert_allclose(found.remembered, [frame.remembered.mean() for frame in frames], atol=0.03)
    assert found.remembered.max() > 0.02 and (found.seen + found.remembered <= 1).all()
    without = replace(shot, render=replace(shot.render, remember=False))
    assert not coverage.of(without).remembered.any()
