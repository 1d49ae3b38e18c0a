"""Takes whose time is retimed: render, coverage, views, estimates, resume and the command line show the same frames."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.take_folder import saved_request, take_into_folder
from ex4d.pipeline.view import SceneViews
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene, sha256_of
from ex4d_core.shot import ShotRequest

TIME = (3, 3, 5, 1, 0)
MOVE = ["--preset", "truck", "--amount", "0.1", "--size", "96x96"]


@pytest.fixture(scope="module")
def request_(sample_scene) -> ShotRequest:
    lens = sample_scene.source_camera().intrinsics[0]
    poses = np.repeat(np.eye(4)[None], len(TIME), axis=0)
    poses[:, 0, 3] = -0.05 * np.arange(len(TIME))
    camera = CameraPath(poses, lens, sample_scene.manifest.width, sample_scene.manifest.height).resized(96, 96)
    return ShotRequest(sample_scene.digest, camera, source_frames=TIME)


# Views and coverage have one sample of each pixel.
AS_VIEWS = RenderSettings(samples=1)


@pytest.fixture(scope="module")
def singles(sample_scene: Scene, request_: ShotRequest) -> list:
    """Each frame of the shot, as an ordinary shot of one frame shows it."""
    found = []
    for k, shown in enumerate(TIME):
        part = request_.camera.frames(k, k + 1)
        found += render_shot(sample_scene, part, AS_VIEWS, first_frame=shown, device="cpu")
    return found


def test_each_frame_is_that_of_its_moment_bit_by_bit(sample_scene, request_, singles):
    frames = list(render_shot(sample_scene, request_.camera, AS_VIEWS, source_frames=TIME, device="cpu"))
    assert [frame.index for frame in frames] == list(range(len(TIME)))
    for frame, single in zip(frames, singles, strict=True):
        assert np.array_equal(frame.color, single.color) and np.array_equal(frame.mask, single.mask)
    assert not np.array_equal(frames[1].color, frames[2].color)


def test_coverage_and_views_are_of_the_same_moments(sample_scene, request_, singles):
    coverage = SceneCoverage(sample_scene, device="cpu")
    found = coverage.of(request_)
    assert np.abs(found.seen - [frame.mask.mean() for frame in singles]).max() < 0.01
    apart = [coverage.of(request_.part(k, k + 1), index=k) for k in range(len(TIME))]
    assert [one.seen[0] for one in apart] == found.seen.tolist()
    assert [one.view_angle[0] for one in apart] == pytest.approx(found.view_angle.tolist())
    views = SceneViews(sample_scene, device="cpu")
    shown = views.look(request_.part(2, 3)).image
    assert np.array_equal(shown[singles[2].mask], singles[2].color[singles[2].mask])


def test_what_the_footage_does_not_have_is_refused(sample_scene, request_):
    beyond = replace(request_, source_frames=(0, 1, 6, 1, 0))
    for ask in (SceneCoverage(sample_scene, device="cpu").of, SceneViews(sample_scene, device="cpu").look):
        with pytest.raises(RequestError, match="footage frame 6"):
            ask(beyond)
    with pytest.raises(RequestError, match="footage frame 6"):
        next(render_shot(sample_scene, beyond.camera, RenderSettings(), source_frames=beyond.source_frames))


def test_a_take_keeps_its_time_is_resumed_only_with_it_and_made_again_with_it(sample_scene, request_, tmp_path):
    scene, take, again = str(sample_scene.path("color").parent), tmp_path / "take", tmp_path / "again"
    take_into_folder(sample_scene, request_, take, device="cpu")
    assert json.loads((take / "request.json").read_text())["source_frames"] == "3*2,5,1-0"
    assert saved_request(take, sample_scene).source_frames == TIME
    with pytest.raises(RequestError, match="source_frames"):
        take_into_folder(sample_scene, replace(request_, source_frames=None), take, device="cpu", resume=True)
    with pytest.raises(RequestError, match="source_frames"):
        take_into_folder(sample_scene, replace(request_, source_frames="3,2,1,1,0"), take, device="cpu", resume=True)
    last = take / "frame_00004.png"
    before = sha256_of(last)
    last.unlink()
    take_into_folder(sample_scene, request_, take, device="cpu", resume=True)
    assert sha256_of(last) == before
    assert main(["generate", scene, "--out", str(again), "--again", str(take)]) == 0
    assert sha256_of(again / "frame_00002.png") == sha256_of(take / "frame_00002.png")


def test_the_command_line_and_the_library_take_a_list(sample_scene, tmp_path, capsys):
    scene, out = str(sample_scene.path("color").parent), tmp_path / "views.npz"
    assert main(["render", scene, "--out", str(out), *MOVE, "--source-frames", "3*2,5,1-0"]) == 0
    with np.load(out) as arrays:
        written = arrays["color"]
    views = ex4d.render(sample_scene, ex4d.move("truck", 0.1), size=(96, 96), source_frames=TIME, device="cpu")
    assert np.array_equal(views.color, written)
    capsys.readouterr()
    assert main(["render", scene, "--out", str(out), *MOVE, "--source-frames", "0-9", "--overwrite"]) != 0
    assert "footage frame 6" in capsys.readouterr().err
    dry = ["generate", scene, "--out", str(tmp_path / "none"), *MOVE, "--source-frames", "3*2,1-0", "--dry-run"]
    assert main(dry) == 0
    clash = ["render", scene, "--out", str(out), *MOVE, "--source-frames", "3*2", "--first-frame", "1", "--overwrite"]
    assert main(clash) != 0
