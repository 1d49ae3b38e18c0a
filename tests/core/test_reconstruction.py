"""A reconstruction's request: what goes over the wire comes back, and what cannot work is refused with the reason."""

import pytest

from ex4d_core.client import Client
from ex4d_core.reconstruction import ReconstructionPlan, ReconstructionRequest, request_from_wire
from ex4d_core.scene import sha256_of
from ex4d_core.shot import RequestError
from ex4d_core.sources import DepthRequest, MistPass, SourceFile
from ex4d_core.transfers import hash_file

FILE = {"sha256": "a" * 64, "size": 5}
VIDEO = SourceFile("a" * 64, 1000, "clip.mp4")
EXRS = tuple(SourceFile(letter * 64, 10, f"depth_{letter}.exr") for letter in "bcd")
GOOD = ReconstructionRequest((VIDEO,), DepthRequest("exr", EXRS, scale=2.0), "clip", fov_degrees=40.0)


def test_a_request_survives_the_wire():
    assert request_from_wire(GOOD.to_wire()) == GOOD
    assert [file.label for file in GOOD.files] == ["clip.mp4", "depth_b.exr", "depth_c.exr", "depth_d.exr"]


CAMERA = (SourceFile("e" * 64, 20, "cameras.txt"), SourceFile("f" * 64, 30, "images.txt"))


def test_a_mist_pass_and_a_moving_camera_survive_it_too():
    request = ReconstructionRequest(
        (VIDEO,), DepthRequest("exr", EXRS, mist=MistPass(2, 20, "quadratic")), "clip", camera=CAMERA, camera_scale=0.1
    )
    assert request_from_wire(request.to_wire()) == request
    assert request.files[-2:] == CAMERA, "its files are sent"


def test_a_request_without_them_is_one_that_older_backends_take():
    values = GOOD.to_wire()
    assert not {"camera", "camera_scale"} & set(values) and "mist" not in values["depth"]


def changed(**changes):
    return {**GOOD.to_wire(), **changes}


def depth(**changes):
    return changed(depth={**GOOD.to_wire()["depth"], **changes})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (changed(kind="sculpture"), "makes no 'sculpture'"),
        (changed(footage=[]), "footage is one video"),
        (changed(footage=7), "must be a list"),
        (changed(footage=[{"sha256": "../../etc/passwd", "size": 1, "label": "a.mp4"}]), "SHA-256"),
        (changed(footage=[{"sha256": "a" * 64, "size": -1, "label": "a.mp4"}]), "bytes"),
        (changed(footage=[{"sha256": "a" * 64, "size": 5, "label": "setup.exe"}]), ".exe"),
        (changed(footage=[{"sha256": "a" * 64, "size": 5, "label": "a.mp4", "path": "/"}]), "too many"),
        (changed(name=""), "name"),
        (changed(fps=[24, 1]), "own rate"),
        (changed(fov_degrees=180.0), "below 180"),
        (changed(fov_degrees=float("nan")), "above 0"),
        (changed(convention="sideways"), "convention"),
        (changed(depth=None), "depth is missing"),
        (changed(shell="rm"), "too many"),
        (depth(layout="guess"), "layout"),
        (depth(layout="array"), "one file"),
        (depth(layout="estimator"), "no depth files"),
        (depth(layout="estimator", files=[]), "needs a name"),
        (depth(scale=0), "above 0"),
        (depth(scale="2"), "above 0"),
        (depth(inverse=1), "true or false"),
        (depth(mist={"start": -1, "depth": 20}), "mist start"),
        (depth(mist={"start": 0, "depth": 0}), "mist depth"),
        (depth(mist={"start": 0, "depth": 1, "falloff": "sudden"}), "falloff"),
        (depth(mist=[1, 2]), "map of fields"),
        (depth(mist={"start": 0, "depth": 1}, inverse=True), "not inverse"),
        (depth(mist={"start": 0, "depth": 1}, layout="array", files=[FILE | {"label": "a.npz"}]), "EXR files"),
        (changed(camera=[FILE | {"label": "camera.abc"}]), "source camera"),
        (changed(camera=[FILE | {"label": "cameras.txt"}]), "cameras.txt with images.txt"),
        (changed(camera=[FILE | {"label": "../cameras.txt"}, FILE | {"label": "images.txt"}]), "source camera"),
        (changed(camera=[FILE | {"label": "camera.npz"}], camera_scale=0), "camera_scale"),
        (changed(camera=[FILE | {"label": "camera.npz"}], camera_scale=None), "camera_scale"),
    ],
)
def test_anything_else_is_refused_with_the_reason(values, says):
    with pytest.raises(RequestError, match=says):
        request_from_wire(values)


def test_a_plan_becomes_a_request_once_its_files_have_hashes(tmp_path):
    video, array = tmp_path / "clip.mov", tmp_path / "depth.npz"
    video.write_bytes(b"video")
    array.write_bytes(b"depth!")
    request = ReconstructionPlan((video,), (array,), "array", "clip").request({video: "a" * 64, array: "b" * 64})
    assert request.footage == (SourceFile("a" * 64, 5, "clip.mov"),)
    assert request.depth.files == (SourceFile("b" * 64, 6, "depth.npz"),)


def test_long_files_are_hashed_in_pieces_between_polls(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(bytes(3_000_000))
    client = Client("tcp://127.0.0.1:1")  # nobody listens there, and hashing needs nobody
    task = client.start(hash_file(path))
    polls = 0
    while not task.done:
        client.poll(budget=0.0)
        polls += 1
    client.close()
    assert task.result == sha256_of(path)
    assert polls == 12, "one chunk of 256 KiB in each poll without any time left"
