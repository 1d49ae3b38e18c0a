"""How takes start: from the source frame, behind a hidden lead-in, and with every n-th frame generated."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import ex4d
from ex4d.generation.frame_strides import fill_between, frames_between, generated_places
from ex4d.machine import MachineSettings
from ex4d.media import probe
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.shot_estimates import estimate_take
from ex4d.pipeline.shot_start import from_source_frame, shot_start, source_image, start_notes
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.wan_settings import wan_preset

FEW = {"steps": 1, "guidance": 1.0, "precision": "float32", "prompt": "a wide street"}


@pytest.fixture
def scene(small_scene) -> Scene:
    return Scene.open(small_scene.folder)


def request_for(scene: Scene, move: float = 0.0, preset: str = "standard", **changes) -> ShotRequest:
    """The source camera, moved to the right by some units."""
    camera = scene.source_camera()
    matrices = camera.world_to_camera.copy()
    matrices[:, 0, 3] -= move
    moved = CameraPath(matrices, camera.intrinsics, *camera.size)
    return ShotRequest(scene.digest, moved, engine="wan", wan=wan_preset(preset, **{**FEW, **changes}))


def rendered(scene: Scene, request: ShotRequest) -> list:
    start = shot_start(scene, request)
    frames = render_shot(scene, start.camera, request.settled_render, source_frames=start.shown, device="cpu")
    return list(from_source_frame(frames, scene, start))


def test_within_half_a_pixel_of_the_source_view_frame_0_is_the_source_frame(scene):
    """A hundredth of a unit at two units is a fifth of a pixel, and tears a hole beside the square."""
    request = request_for(scene, 0.01)
    assert 0.1 < shot_start(scene, request).distance < 0.5
    first, second, *_ = rendered(scene, request)
    assert np.array_equal(first.color, scene.color()[0]) and first.mask.all() and first.visible_fraction == 1
    assert second.visible_fraction < 1 and len(rendered(scene, request)) == 6
    assert start_notes(scene, request, "cpu", None) == []


def test_any_other_start_has_hidden_frames_that_begin_with_the_source_frame(scene):
    request = request_for(scene, 0.5)
    start = shot_start(scene, request)
    assert (start.hidden, len(start.camera), start.at_source) == (8, 14, True) and start.distance > 5
    frames = rendered(scene, request)
    assert [frame.index for frame in frames] == list(range(14))
    assert np.array_equal(frames[0].color, scene.color()[0]) and frames[0].mask.all()
    seen = [frame.visible_fraction for frame in frames]
    assert min(seen[:4]) > seen[8] and seen[8] < 0.9
    plain = rendered(scene, request_for(scene, 0.5, "ex4d-reference"))
    assert np.array_equal(plain[0].color, frames[8].color), "the shot's own frames are the same"
    assert "8 hidden frames lead in, 67% more" in start_notes(scene, request, "cpu", None)[0]


def test_without_a_lead_in_the_seen_share_of_frame_0_is_said(scene):
    request = request_for(scene, 0.5, lead_in=0)
    start = shot_start(scene, request)
    assert start.hidden == 0 and not start.at_source
    share = rendered(scene, request)[0].visible_fraction
    (note,) = start_notes(scene, request, "cpu", None)
    assert f"{share:.1%} of it is seen" in note and "--lead-in 8" in note
    assert note in estimate_take(scene, request, "cpu").basis


def test_hidden_frames_are_as_far_apart_in_time_as_the_generated_ones(scene):
    moved = request_for(scene, 0.5)
    shot = replace(moved, first_frame=3, camera=moved.camera.frames(0, 3))
    assert shot_start(scene, shot).shown == (0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5)
    strided = replace(shot, wan=replace(shot.wan, stride=2))
    assert shot_start(scene, strided).shown == (0, 0, 0, 0, 0, 0, 0, 1, 3, 4, 5), "frame 3 comes before frame 5"


def test_a_start_that_looks_away_is_said_in_words(scene):
    """Points of the footage are behind its camera, so that their distance in pixels is infinite."""
    camera = scene.source_camera()
    turned = np.diag([-1.0, 1, -1, 1]) @ camera.world_to_camera
    request = replace(request_for(scene), camera=CameraPath(turned, camera.intrinsics, *camera.size))
    (note,) = start_notes(scene, request, "cpu", None)
    assert note.startswith("frame 0 looks another way than the source view: 8 hidden frames")


def test_ex4ds_own_settings_previews_and_its_convention_have_no_lead_in(scene):
    for request in (
        request_for(scene, 0.5, "ex4d-reference"),
        replace(request_for(scene, 0.5), engine="preview"),
        replace(request_for(scene, 0.5), render=replace(request_for(scene).render, convention="reference")),
    ):
        assert shot_start(scene, request).hidden == 0 and not shot_start(scene, request).at_source


def test_the_source_frame_is_scaled_and_cut_to_a_shot_of_another_aspect(scene):
    camera = scene.source_camera()
    intrinsics = camera.intrinsics.copy()
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 80
    intrinsics[:, :2, 2] = 32
    square = CameraPath(camera.world_to_camera, intrinsics, 64, 64)
    request = replace(request_for(scene), camera=square)
    start = shot_start(scene, request)
    assert start.at_source and start.hidden == 0
    image = source_image(scene, start)
    assert image.shape == (64, 64, 3)
    halved = image.reshape(32, 2, 32, 2, 3).mean((1, 3))
    alike = [np.corrcoef(halved.ravel(), scene.color()[0][:, left : left + 32].ravel())[0, 1] for left in (7, 8, 9)]
    assert np.argmax(alike) == 1 and alike[1] > 0.9


def test_movies_of_a_shot_with_wide_pixels_say_so(scene, tmp_path):
    wide = request_for(scene).camera.resized(24, 32)
    take = ex4d.generate(scene, wide, tmp_path / "take")
    found = [probe(take.folder / name).pixel_aspect for name in ("take.mp4", "color.mp4", "mask.mp4")]
    assert found == pytest.approx([wide.pixel_aspect] * 3) and wide.pixel_aspect == pytest.approx(2, rel=0.1)


# Every n-th frame.


def square_at(x: float) -> np.ndarray:
    """A textured image, moved to the left by x pixels."""
    texture = np.random.default_rng(0).integers(0, 256, (16, 30, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
    return np.ascontiguousarray(texture[24:152, 40 + int(x) : 232 + int(x)])


def test_frames_between_two_show_what_moved_half_way():
    (middle,) = frames_between(square_at(0), square_at(8), 1)
    mixed = (square_at(0).astype(float) + square_at(8)) / 2
    off = np.abs(middle.astype(float) - square_at(4)).mean()
    assert off < np.abs(mixed - square_at(4)).mean() / 3
    one, two, three = frames_between(square_at(0), square_at(8), 3)
    for frame, place in ((one, 2), (two, 4), (three, 6)):
        distances = [np.abs(frame.astype(float) - square_at(x)).mean() for x in range(9)]
        assert abs(int(np.argmin(distances)) - place) <= 1


def test_generated_frames_stay_as_they_are_and_the_others_are_filled_in():
    places = generated_places(6, 2)
    assert places == [0, 2, 4, 5]
    images = [square_at(4 * place) for place in places]
    filled = list(fill_between(images, places))
    assert len(filled) == 6 and np.array_equal([filled[place] for place in places], images)
    rest = list(fill_between(images[2:], places[2:], (2, images[1])))
    assert np.array_equal(rest, filled[3:])


# Whole takes, with the engine.


@pytest.fixture
def make(small_scene, toy_models, tmp_path, monkeypatch):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))

    def run(name: str, move: float, **more):
        notes = []
        scene = ex4d.open_scene(small_scene.folder)
        settings = {"engine": "wan", "device": "cpu", "note": notes.append, **FEW, **more}
        return ex4d.generate(scene, request_for(scene, move).camera, tmp_path / name, **settings), notes

    return run


def test_a_take_with_a_lead_in_has_the_shots_own_frames_alone(make, scene, toy_models):
    take, notes = make("take", 0.5)
    assert take.frames.shape == (6, 32, 48, 3) and "8 hidden frames lead in" in notes[0]
    assert probe(take.folder / "color.mp4").frames == probe(take.folder / "take.mp4").frames == 6
    from ex4d.generation.wan.wan_engine import create_wan_engine

    engine = create_wan_engine(request_for(scene).wan, "cpu", MachineSettings(toy_models))
    generated = list(engine.generate(rendered(scene, request_for(scene, 0.5)), count=14))
    assert np.array_equal(take.frames, generated[8:])


def test_a_strided_take_is_whole_and_continues_after_an_interruption(make):
    few = {"stride": 2, "window": 5, "overlap": 1, "lead_in": 0}
    whole, notes = make("whole", 0.5, **few)
    assert len(whole.frames) == 6 and "% of it is seen" in notes[0]
    request = json.loads((whole.folder / "request.json").read_text(encoding="utf-8"))
    assert request["wan"]["stride"] == 2 and "lead_in" not in request["wan"]

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("wan", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("take", 0.5, progress=interrupt, **few)
    resumed, _ = make("take", 0.5, resume=True, **few)
    assert np.array_equal(resumed.frames, whole.frames)
