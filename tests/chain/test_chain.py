"""Footage to scene, scene to masks, masks to a take: the rooms together, on the sample clip."""

import json
import struct
from itertools import pairwise

import numpy as np
import pytest

from ex4d.depth import DepthError, DepthFiles
from ex4d.media import probe, read_frames, read_metadata, read_png, read_png_metadata
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.scene_building import build_scene
from ex4d.pipeline.take import generate_take
from ex4d_core.cameras import CameraPath
from ex4d_core.mesh_cache import positions_file
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import PreviewSettings, RequestError, ShotRequest
from ex4d_core.take_files import ALL_TAKE_FILES
from ex4d_core.trajectories import Trajectory, build_path


def preset(scene: Scene, name: str, frames: int | None = None, **settings) -> CameraPath:
    manifest = scene.manifest
    lens = scene.source_camera().intrinsics[0]
    size = (manifest.width, manifest.height)
    return build_path(Trajectory(name, **settings), frames or manifest.frames, lens, *size, manifest.subject_distance)


class Collected:
    """A sink that keeps what it is told and where."""

    def __init__(self, folder):
        self.folder, self.frames, self.files, self.stages, self.estimates = folder, [], [], [], []

    def progress(self, stage, done, total):
        self.stages.append((stage, done, total))

    def frame(self, index, path):
        self.frames.append(index)
        path.rename(self.folder / path.name)

    def estimate(self, number, path):
        self.estimates.append(number)
        path.rename(self.folder / path.name)

    def file(self, name, path, sha256=""):
        self.files.append(name)
        path.rename(self.folder / name)


@pytest.fixture
def take(sample_scene, tmp_path):
    """Runs generate_take and returns its sink."""

    def make(**changes) -> Collected:
        request = ShotRequest(**{"scene": sample_scene.digest, "camera": preset(sample_scene, "30"), **changes})
        work, sink = tmp_path / "work", Collected(tmp_path)
        work.mkdir()
        generate_take(sample_scene, request, device="cpu", sink=sink, work_folder=work)
        assert not list(work.iterdir()), "nothing is left in the work folder"
        return sink

    return make


def test_a_scene_holds_what_was_filmed(sample_scene, sample_clip):
    footage = np.stack(list(read_frames(sample_clip / "footage.mp4")))
    assert np.array_equal(sample_scene.color(), footage)
    assert np.array_equal(sample_scene.depth(), np.load(sample_clip / "depth.npz")["depth"])
    movie = probe(sample_scene.path("footage"))
    assert (movie.frames, movie.fps) == (len(footage), sample_scene.manifest.fps)


def test_the_vertex_cache_is_the_unprojected_depth(sample_scene):
    manifest, frame = sample_scene.manifest, 3
    faces, uvs, caps = sample_scene.topology()
    data = positions_file(sample_scene).read_bytes()
    signature, _, points, start, rate, samples = struct.unpack_from("<12siiffi", data)
    assert signature == b"POINTCACHE2\0" and (points, samples, start, rate) == (len(uvs), manifest.frames, 0, 1)
    positions = np.frombuffer(data, "<f4", offset=32).reshape(samples, points, 3)[frame]
    lens, depth = sample_scene.source_camera().intrinsics[frame], sample_scene.depth()[frame]
    picture = positions @ lens.T
    picture = picture[:, :2] / picture[:, 2:]
    # Every vertex lies where its texture coordinate says (v points up).
    expected = uvs * [manifest.width, -manifest.height] + [0, manifest.height]
    assert np.abs(picture - expected).max() < 2e-3
    row, column = 200, 300
    nearest = np.argmin(np.abs(picture - [column + 0.5, row + 0.5]).sum(axis=1))
    assert positions[nearest, 2] == pytest.approx(depth[row, column])
    assert faces.max() == points - 1 and caps == 2


def test_the_source_camera_gives_the_footage_back(sample_scene):
    for frame in render_shot(sample_scene, sample_scene.source_camera(), RenderSettings(), device="cpu"):
        assert frame.mask.all()
        assert np.array_equal(frame.color, sample_scene.color()[frame.index])
        assert np.allclose(frame.depth, sample_scene.depth()[frame.index], rtol=1e-4)


def test_a_moved_camera_uncovers_what_was_never_seen(sample_scene):
    seen = [
        frame.mask.mean()
        for frame in render_shot(sample_scene, preset(sample_scene, "30"), RenderSettings(), device="cpu")
    ]
    assert seen[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(seen))
    assert 0.2 < seen[-1] < 0.9


def test_the_reference_convention_shows_the_source_as_frame_0_whatever_the_camera(sample_scene):
    camera = preset(sample_scene, "truck", amount=0.5).frames(2, 5)
    reference = list(render_shot(sample_scene, camera, RenderSettings(convention="reference"), device="cpu"))
    assert np.array_equal(reference[0].color, sample_scene.color()[0])
    assert reference[0].mask.all() and not reference[1].mask.all()


def test_a_render_may_have_any_size_and_start_anywhere(sample_scene):
    camera = preset(sample_scene, "30", frames=2).resized(201, 77)
    frames = list(render_shot(sample_scene, camera, RenderSettings(), first_frame=3, device="cpu"))
    assert [frame.color.shape for frame in frames] == [(77, 201, 3)] * 2
    rows, columns = ((np.arange(count) + 0.5) * 512 // count for count in (77, 201))
    nearest = sample_scene.color()[3][np.ix_(rows.astype(int), columns.astype(int))]
    error = np.abs(nearest.astype(int) - frames[0].color)[frames[0].mask]
    assert frames[0].mask.mean() > 0.9 and np.median(error) <= 3


def test_a_camera_inside_the_mesh_and_one_behind_it_see_nothing_that_is_not_there(sample_scene):
    inside, behind = np.eye(4), np.diag([-1.0, 1.0, -1.0, 1.0])
    inside[2, 3] = -1.5 * sample_scene.manifest.depth_range[1]
    camera = CameraPath(np.stack([inside, behind]), sample_scene.source_camera().intrinsics[:2], 512, 512)
    frames = list(render_shot(sample_scene, camera, RenderSettings(), device="cpu"))
    assert not frames[0].mask.any() and not frames[1].mask.any()


@pytest.mark.parametrize("first_frame", [-1, 1, 100])
def test_a_camera_past_the_footage_is_refused(sample_scene, first_frame):
    with pytest.raises(RequestError, match="the scene has"):
        next(render_shot(sample_scene, preset(sample_scene, "30"), RenderSettings(), first_frame=first_frame))


def test_a_take_brings_every_frame_once_and_all_its_files(sample_scene, take):
    sink = take(label="First take")
    assert sink.frames == list(range(6))
    assert sorted(sink.files) == sorted(ALL_TAKE_FILES)
    assert sink.stages[-1] == ("preview", 6, 6)
    frame = read_png(sink.folder / "frame_00000.png")
    assert np.array_equal(frame, sample_scene.color()[0])
    for name in ("take.mp4", "color.mp4", "mask.mp4"):
        assert probe(sink.folder / name).frames == 6
    camera = CameraPath.load(sink.folder / "camera.npz")
    assert np.array_equal(camera.world_to_camera, preset(sample_scene, "30").world_to_camera)


def test_a_preview_says_so_in_its_metadata_and_not_in_its_pixels(take):
    sink = take()
    assert read_png_metadata(sink.folder / "frame_00005.png")["ex4d_engine"] == "preview"
    metadata = read_metadata(sink.folder / "take.mp4")
    assert metadata["ex4d_engine"] == "preview"
    assert json.loads(metadata["ex4d_request"])["scene_name"] == "sample"


def test_marked_holes_are_neither_seen_nor_remembered(take):
    sink = take(preview=PreviewSettings("mark", (0, 255, 0)))
    soft, remembered = (list(read_frames(sink.folder / name))[5][..., 0] for name in ("mask.mp4", "remembered.mp4"))
    frame = read_png(sink.folder / "frame_00005.png")
    marked = (frame == (0, 255, 0)).all(axis=2)
    known = (soft > 125) | (remembered > 125)
    clear = (soft < 10) | (soft > 245)  # soft edges show both
    assert clear.mean() > 0.95 and np.mean((marked == ~known)[clear]) > 0.998


def test_impossible_depth_stops_the_reconstruction_and_leaves_nothing(sample_clip, tmp_path):
    depth = np.load(sample_clip / "depth.npz")["depth"].copy()
    depth[4, 100, 200] = np.nan
    np.savez(tmp_path / "depth.npz", depth=depth)
    footage = probe(sample_clip / "footage.mp4")
    with pytest.raises(DepthError, match="frame 4"):
        build_scene(
            footage,
            DepthFiles(tmp_path / "depth.npz").estimate(footage),
            np.array([[500, 0, 256], [0, 500, 256], [0, 0, 1.0]]),
            tmp_path / "scene",
            name="broken",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["depth.npz"]
