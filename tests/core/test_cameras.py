"""Camera paths and conversions. Blender's own view of the same conversions is tested in tests/blender."""

import numpy as np
import pytest

from ex4d_core.blender_cameras import (
    BlenderLens,
    blender_from_intrinsics,
    blender_from_world_to_camera,
    intrinsics_from_blender,
    world_to_camera_from_blender,
)
from ex4d_core.cameras import (
    CameraError,
    CameraPath,
    from_reference,
    from_reference_file,
    intrinsics_matrix,
    invert_rigid,
    look_at,
)

LENS = intrinsics_matrix(500, 520, 170, 90)


def some_cameras(frames: int = 5) -> np.ndarray:
    time = np.linspace(0, 1, frames)[:, None]
    return look_at(np.hstack([time, -0.5 * time, 0.2 * time]), np.array([0.0, 0.0, 4.0]))


@pytest.mark.parametrize("size", [(192, 320), (832, 480), (200, 200)])
@pytest.mark.parametrize("pixel_aspect", [1.0, 64 / 45])
@pytest.mark.parametrize("framing", ["crop", "extend"])
def test_an_image_of_another_shape_has_square_pixels(size, pixel_aspect, framing):
    camera = CameraPath(some_cameras(), intrinsics_matrix(500, 500 * pixel_aspect, 170, 90), 320, 192)
    framed = camera.framed(*size, framing)
    assert framed.size == size and framed.pixel_aspect == pytest.approx(1)
    corners = np.array([[0, size[0], size[0] / 2], [0, size[1], size[1] / 2], [1, 1, 1]])
    left, right, middle = (camera.intrinsics[0] @ np.linalg.inv(framed.intrinsics[0]) @ corners)[:2].T
    assert np.allclose(middle, (160, 96))
    shares = (right - left) / (320, 192)
    assert np.allclose(shares, camera.shown_shares(*size, framing))
    assert (shares.max() if framing == "crop" else shares.min()) == pytest.approx(1), "no larger than needed"


def test_an_image_of_the_same_shape_keeps_its_pixels():
    camera = CameraPath(some_cameras(), intrinsics_matrix(500, 700, 170, 90), 320, 192)
    for size in ((640, 384), (107, 64)):
        assert np.allclose(camera.framed(*size).intrinsics, camera.resized(*size).intrinsics)
        assert camera.shown_shares(*size) == (1, 1)


def test_a_camera_looks_at_its_target_with_x_right_and_y_down():
    eye, target = np.array([[1.0, -1.0, 0.5]]), np.array([0.0, 0.0, 3.0])
    world_to_camera = look_at(eye, target)[0]
    seen = world_to_camera[:3, :3] @ target + world_to_camera[:3, 3]
    assert np.allclose(seen, [0, 0, np.linalg.norm(target - eye[0])])
    right, down = world_to_camera[0, :3], world_to_camera[1, :3]
    assert right[1] == pytest.approx(0) and right[0] > 0
    assert down[1] > 0


@pytest.mark.parametrize(
    ("eye", "target", "message"),
    [([0, 0, 1], [0, 0, 1], "frame 0"), ([0, -2, 0], [0, 3, 0], "straight up or down")],
)
def test_views_without_a_direction_or_horizon_are_refused(eye, target, message):
    with pytest.raises(CameraError, match=message):
        look_at(np.array([eye], dtype=float), np.array(target, dtype=float))


def test_blender_matrices_come_back_whatever_the_scene_object_does():
    cameras = some_cameras()
    turn = invert_rigid(some_cameras(2))[1]
    turn[:3, :3] *= 2.5
    assert np.allclose(world_to_camera_from_blender(blender_from_world_to_camera(cameras)), cameras)
    assert np.allclose(world_to_camera_from_blender(blender_from_world_to_camera(cameras, turn), turn), cameras)


def test_scale_of_a_cameras_parents_changes_nothing():
    matrices = blender_from_world_to_camera(some_cameras())
    scaled = matrices.copy()
    scaled[:, :3, :3] *= [0.5, 2.0, 3.0]
    assert np.allclose(world_to_camera_from_blender(scaled), some_cameras())


def test_a_sheared_camera_and_an_uneven_scene_are_refused():
    matrices = blender_from_world_to_camera(some_cameras())
    sheared = matrices.copy()
    sheared[2, :3, 0] += 0.3 * sheared[2, :3, 1]
    with pytest.raises(CameraError, match="frame 2 is not rigid"):
        world_to_camera_from_blender(sheared)
    with pytest.raises(CameraError, match="scaled unevenly"):
        world_to_camera_from_blender(matrices, np.diag([1.0, 2.0, 1.0, 1.0]))


def test_the_originals_matrices_and_files_are_one_convention_apart():
    cameras = some_cameras()
    raw = np.diag([-1.0, 1.0, 1.0, 1.0]) @ cameras
    in_file = np.diag([-1.0, -1.0, -1.0, 1.0]) @ raw
    assert np.allclose(from_reference(raw), cameras)
    assert np.allclose(from_reference_file(in_file), cameras)


def test_blender_optics_made_of_intrinsics_see_the_same():
    for intrinsics in (LENS, intrinsics_matrix(300, 280, 100, 130)):
        assert np.allclose(intrinsics_from_blender(blender_from_intrinsics(intrinsics, 320, 192)), intrinsics)


def test_the_sensor_is_fitted_as_blender_fits_it():
    optics = {"lens": 50.0, "sensor_width": 36.0, "sensor_height": 24.0, "shift_x": 0.0, "shift_y": 0.0}
    portrait = intrinsics_from_blender(BlenderLens(**optics, sensor_fit="AUTO", width=400, height=800))
    assert portrait[0, 0] == pytest.approx(50 / 36 * 800)
    vertical = intrinsics_from_blender(BlenderLens(**optics, sensor_fit="VERTICAL", width=400, height=800))
    assert vertical[0, 0] == pytest.approx(50 / 24 * 800)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cameras, lens: cameras[3].__setitem__((0, 0), np.nan), "frame 3 is not finite"),
        (lambda cameras, lens: cameras[1].__setitem__((0, 0), 7.0), "frame 1 is not rigid"),
        (lambda cameras, lens: cameras[4].__setitem__((0, slice(None)), -cameras[4, 0]), "frame 4 is not rigid"),
        (lambda cameras, lens: lens[2].__setitem__((0, 0), np.inf), "frame 2 are not finite"),
        (lambda cameras, lens: lens[2].__setitem__((1, 1), -5.0), "frame 2 is -5 pixels"),
    ],
)
def test_impossible_cameras_name_the_frame(change, message):
    cameras, lens = some_cameras(), np.repeat(LENS[None], 5, axis=0)
    change(cameras, lens)
    with pytest.raises(CameraError, match=message):
        CameraPath(cameras, lens, 320, 192)


def test_wrong_shapes_are_refused():
    with pytest.raises(CameraError, match="T > 0"):
        CameraPath(np.zeros((0, 4, 4)), LENS, 320, 192)
    with pytest.raises(CameraError, match=r"intrinsics must be \(5, 3, 3\)"):
        CameraPath(some_cameras(), np.repeat(LENS[None], 4, axis=0), 320, 192)
    with pytest.raises(CameraError, match="0x192"):
        CameraPath(some_cameras(), LENS, 0, 192)


def test_a_principal_point_can_be_put_in_the_middle_of_the_image():
    path = CameraPath(some_cameras(2), LENS, 320, 192).with_centred_principal_point()
    assert np.array_equal(path.intrinsics, [intrinsics_matrix(500, 520, 160, 96)] * 2)


def test_a_path_survives_its_file(tmp_path):
    path = CameraPath(some_cameras(), LENS, 320, 192)
    path.save(tmp_path / "camera.npz")
    read = CameraPath.load(tmp_path / "camera.npz")
    assert np.array_equal(read.world_to_camera, path.world_to_camera)
    assert np.array_equal(read.intrinsics, path.intrinsics)
    assert (read.width, read.height) == (320, 192)


def test_a_file_without_size_takes_it_from_the_principal_point(tmp_path):
    np.savez(tmp_path / "camera.npz", extrinsics=some_cameras(), intrinsics=intrinsics_matrix(500, 500, 160, 96))
    assert CameraPath.load(tmp_path / "camera.npz").height == 192
    assert CameraPath.load(tmp_path / "camera.npz", 640, 384).width == 640


def test_files_that_are_no_cameras_say_what_they_lack(tmp_path):
    np.savez(tmp_path / "other.npz", extrinsics=some_cameras())
    with pytest.raises(CameraError, match=r"lacks \['intrinsics'\]"):
        CameraPath.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(CameraError, match="cannot read"):
        CameraPath.load(tmp_path / "text.npz")


def test_the_originals_files_are_read_when_asked_for(tmp_path):
    in_file = np.diag([1.0, -1.0, -1.0, 1.0]) @ some_cameras()
    np.savez(tmp_path / "camera_180.npz", extrinsics=in_file, intrinsics=intrinsics_matrix(500, 500, 160, 96))
    read = CameraPath.load(tmp_path / "camera_180.npz", convention="original")
    assert np.allclose(read.world_to_camera, some_cameras())


def test_a_damaged_file_and_one_that_unpacks_without_end_are_refused(tmp_path):
    CameraPath(some_cameras(), LENS, 320, 192).save(tmp_path / "camera.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "camera.npz").read_bytes()[:-200])
    np.savez_compressed(tmp_path / "bomb.npz", extrinsics=np.zeros(10_000_000), intrinsics=np.eye(3))
    for name in ("cut.npz", "bomb.npz"):
        with pytest.raises(CameraError, match="cannot read"):
            CameraPath.load(tmp_path / name)


def test_resizing_moves_every_pixel_with_the_picture():
    path = CameraPath(some_cameras(), LENS, 320, 192).resized(640, 96)
    assert np.allclose(path.intrinsics[0], [[1000, 0, 340], [0, 260, 45], [0, 0, 1]])


def test_a_camera_that_zooms_has_no_file_in_the_originals_convention(tmp_path):
    lenses = np.repeat(np.diag([500.0, 500, 1])[None], 2, axis=0)
    lenses[1, :2, :2] *= 2
    camera = CameraPath(np.repeat(np.eye(4)[None], 2, axis=0), lenses, 64, 48)
    with pytest.raises(CameraError, match="zooms"):
        camera.save(tmp_path / "camera.npz", convention="original")
    assert not (tmp_path / "camera.npz").exists()
