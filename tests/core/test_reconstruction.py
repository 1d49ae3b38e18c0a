"""A reconstruction's request: what goes over the wire comes back, and what cannot work is refused with the reason."""

import struct
from dataclasses import replace

import pytest

from ex4d_core.client import Client
from ex4d_core.messages import REQUESTS, Submit
from ex4d_core.reconstruction import (
    ReconstructionPlan,
    ReconstructionRequest,
    ReconstructionSettings,
    request_from_wire,
)
from ex4d_core.scene import sha256_of
from ex4d_core.shot import RequestError
from ex4d_core.sources import DepthSettings, MistPass, SourceFile
from ex4d_core.transfers import hash_file
from ex4d_core.wire import decode, encode

VIDEO = SourceFile("a" * 64, 1000, "clip.mp4")
EXRS = tuple(SourceFile(letter * 64, 10, f"depth_{letter}.exr") for letter in "bcd")
GOOD = ReconstructionRequest(
    ReconstructionSettings("clip", DepthSettings("exr", scale=2.0), fov_degrees=40.0), (VIDEO,), EXRS
)


def test_a_request_survives_the_wire():
    assert request_from_wire(GOOD.to_wire()) == GOOD
    assert [file.label for file in GOOD.files] == ["clip.mp4", "depth_b.exr", "depth_c.exr", "depth_d.exr"]


def test_a_long_clip_of_images_with_a_depth_file_for_each_survives_the_wire():
    """Thousands of files in one message, whose header may hold few maps and lists."""
    frames = range(5000)
    images = tuple(SourceFile(f"{frame:064x}", 1 + frame, f"größe {frame:04d}.png") for frame in frames)
    depths = tuple(SourceFile(f"{frame:064x}", 2**36 - frame, f"z{frame:04d}.exr") for frame in frames)
    settings = ReconstructionSettings("long", DepthSettings("exr"), fps=(24000, 1001))
    request = ReconstructionRequest(settings, images, depths)
    _, message = decode(encode(Submit("key", request.to_wire()), 1), REQUESTS)
    assert request_from_wire(message.request) == request


CAMERA = (SourceFile("e" * 64, 20, "cameras.txt"), SourceFile("f" * 64, 30, "images.txt"))


def test_a_mist_pass_and_a_moving_camera_survive_it_too():
    depth = DepthSettings("exr", mist=MistPass(2, 20, "quadratic"))
    request = ReconstructionRequest(ReconstructionSettings("clip", depth, camera_scale=0.1), (VIDEO,), EXRS, CAMERA)
    assert request_from_wire(request.to_wire()) == request
    assert request.files[-2:] == CAMERA, "its files are sent"


MASK = (SourceFile("1" * 64, 20, "mask_1.png"), SourceFile("2" * 64, 30, "mask_2.png"))


def test_a_motion_mask_survives_it_and_is_left_out_where_there_is_none():
    request = replace(GOOD, mask_files=MASK)
    assert request_from_wire(request.to_wire()) == request
    assert request.files[-2:] == MASK, "its files are sent"
    assert "mask" not in GOOD.to_wire(), "older sides refuse it"
    for files in (CAMERA, (VIDEO, *MASK), (MASK[0], replace(MASK[1], label="mask_2.jpg"))):
        with pytest.raises(RequestError, match="motion mask must be one video"):
            replace(GOOD, mask_files=files)


def test_offset_and_far_limit_survive_it_and_are_left_out_where_nothing_is_set():
    depth = DepthSettings("estimator", estimator="auto", offset=-0.1, far_limit=40.0, camera_fit=False)
    request = ReconstructionRequest(ReconstructionSettings("clip", depth), (VIDEO,))
    assert request_from_wire(request.to_wire()) == request
    assert not {"offset", "far_limit", "camera_fit"} & set(GOOD.to_wire()["depth"]), "older sides refuse them"


def test_ignoring_an_estimators_poses_survives_it_and_the_default_is_not_sent():
    """A backend of before knows no other camera than a file's, and refuses fields that it does not know."""
    still = ReconstructionRequest(replace(GOOD.settings, camera_motion="still"), GOOD.footage, GOOD.depth_files)
    assert request_from_wire(still.to_wire()) == still
    assert "camera_motion" in still.to_wire() and "camera_motion" not in GOOD.to_wire()
    with pytest.raises(RequestError, match="camera_motion"):
        request_from_wire(changed(camera_motion="shaken"))


def changed(**changes):
    return {**GOOD.to_wire(), **changes}


def files(**changes):
    """One file, a.mp4, or what is changed of it."""
    return {"sha256": bytes(32), "size": struct.pack("<Q", 5), "label": "a.mp4", **changes}


def depth(**changes):
    return changed(depth={**GOOD.to_wire()["depth"], **changes})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (changed(kind="sculpture"), "'sculpture'"),
        (changed(footage=files(sha256=b"", size=b"", label="")), "footage must be one video"),
        (changed(footage=7), "must be a map"),
        (changed(footage=files(path="/")), "must be a map"),
        (changed(footage=files(sha256="../../etc/passwd")), "hashes and sizes as bytes"),
        (changed(footage=files(sha256=bytes(31))), "do not go together"),
        (changed(footage=files(size=bytes(9))), "do not go together"),
        (changed(footage=files(label="a.mp4\0b.mp4")), "do not go together"),
        (changed(footage=files(size=bytes(8))), "size must be .* from 1 to .*, not 0"),
        (changed(footage=files(size=b"\xff" * 8)), "size must be .* from 1 to"),
        (changed(footage=files(size=bytes(8 * 100_001))), "100000 files"),
        (changed(footage=files(label="setup.exe")), ".exe"),
        (changed(footage=files(label="a" * 201)), "at most 200"),
        (changed(name=""), "name"),
        (changed(fps=[24, 1]), "own frame rate"),
        (changed(fov_degrees=180.0), "fov_degrees must be .* below 180, not 180.0"),
        (changed(fov_degrees=float("nan")), "fov_degrees must be a number above 0"),
        (changed(convention="sideways"), "convention"),
        (changed(depth=None), "depth is missing"),
        (changed(shell="rm"), "no field 'shell'"),
        (depth(layout="guess"), "layout"),
        (depth(layout="array"), "one file"),
        (depth(layout="estimator", estimator="auto"), "no depth files"),
        (depth(layout="estimator", files=files(sha256=b"", size=b"", label="")), "estimator must be a name"),
        (depth(files=None), "must be a map"),
        (depth(scale=0), "above 0"),
        (depth(scale="2"), "above 0"),
        (depth(inverse=1), "true or false"),
        (depth(mist={"start": -1, "depth": 20}), "start must be a number from 0"),
        (depth(mist={"start": 0, "depth": 0}), "depth must be a number above 0"),
        (depth(mist={"start": 0, "depth": 1, "falloff": "sudden"}), "falloff"),
        (depth(mist=[1, 2]), "map of fields"),
        (depth(mist={"start": 0, "depth": 1}, inverse=True), "not inverse"),
        (depth(mist={"start": 0, "depth": 1}, layout="array", files=files(label="a.npz")), "EXR files"),
        (changed(camera=files(label="camera.abc")), "source camera"),
        (changed(camera=files(label="cameras.txt")), "cameras.txt with images.txt"),
        (
            changed(camera=files(sha256=bytes(64), size=struct.pack("<2Q", 5, 5), label="../cameras.txt\0images.txt")),
            "source camera",
        ),
        (changed(camera=files(label="camera.npz"), camera_scale=0), "camera_scale"),
        (changed(camera=files(label="camera.npz"), camera_scale=None), "camera_scale"),
    ],
)
def test_anything_else_is_refused_with_the_reason(values, says):
    with pytest.raises(RequestError, match=says):
        request_from_wire(values)


def test_a_plan_becomes_a_request_once_its_files_have_hashes(tmp_path):
    video, array = tmp_path / "clip.mov", tmp_path / "depth.npz"
    video.write_bytes(b"video")
    array.write_bytes(b"depth!")
    plan = ReconstructionPlan(ReconstructionSettings("clip", DepthSettings("array")), (video,), (array,))
    request = plan.request({video: "a" * 64, array: "b" * 64})
    assert request.footage == (SourceFile("a" * 64, 5, "clip.mov"),)
    assert request.depth_files == (SourceFile("b" * 64, 6, "depth.npz"),)


def test_a_name_of_no_alphabet_can_be_sent_all_the_same(tmp_path):
    video, array = tmp_path / "caf\udce9.mov", tmp_path / "depth.npz"
    try:
        video.write_bytes(b"video")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes no such names")
    array.write_bytes(b"depth!")
    plan = ReconstructionPlan(ReconstructionSettings(video.stem, DepthSettings("array")), (video,), (array,))
    request = plan.request({video: "a" * 64, array: "b" * 64})
    assert (request.label, request.footage[0].label) == ("caf?", "caf?.mov")
    assert encode(Submit("key", request.to_wire()), 1)


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
