"""Footage and depth go up, a scene package comes down: the reconstruction job, by a real worker."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthFiles
from ex4d.media import VideoWriter, probe, read_frames, write_png
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.client import Client
from ex4d_core.conversations import RequestRefused
from ex4d_core.messages import BlobStatus, Error, Submit
from ex4d_core.reconstruction import ReconstructionPlan, ReconstructionSettings
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import RENDER_FILES
from ex4d_core.scene_remap import remap_scene
from ex4d_core.sources import DepthSettings, MistPass

FRAMES, WIDTH, HEIGHT = 5, 32, 24
MOVING = Path(__file__).resolve().parents[1] / "data" / "moving_camera"


def image(index: int) -> np.ndarray:
    shown = np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8)
    shown[:, : WIDTH // 2] = 200
    return shown


def wall_and_post() -> np.ndarray:
    depth = np.full((FRAMES, HEIGHT, WIDTH), 4.0, np.float32)
    depth[:, 8:16, 12:20] = 2.0
    return depth


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """clip.mp4, depth.npz and the same clip as images."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "images").mkdir()
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, Fraction(25)) as movie:
        for index in range(FRAMES):
            movie.write(image(index))
            write_png(folder / "images" / f"{index:03d}.png", image(index))
    np.savez(folder / "depth.npz", depth=wall_and_post())
    return folder


@pytest.fixture
def client(service):
    client = Client(service.address)
    yield client
    client.close()


def plan(clip: Path, depth: str = "depth.npz", **changes) -> ReconstructionPlan:
    """A plan for the clip; ``changes`` are of its files, its settings, or its depth's settings."""
    files = {"footage": (clip / "clip.mp4",), "depth_files": (clip / depth,), "camera_files": (), "mask_files": ()}
    files = {name: changes.pop(name, paths) for name, paths in files.items()}
    of_depth = {entry.name for entry in fields(DepthSettings)} & set(changes)
    depth_settings = DepthSettings(**{"layout": "array", **{name: changes.pop(name) for name in of_depth}})
    return ReconstructionPlan(ReconstructionSettings(changes.pop("name", "clip"), depth_settings, **changes), **files)


def test_footage_becomes_a_scene_package(client, clip, tmp_path):
    job = RemoteScene(tmp_path / "scene", plan(clip, fov_degrees=60.0))
    status = client.run(job.conversation(), timeout=60)
    assert (status.state, status.engine, status.label) == ("done", "reconstruction", "clip"), status.reason
    scene = Scene.open(tmp_path / "scene")
    assert (scene.manifest.frames, scene.manifest.fps) == (FRAMES, 25)
    assert scene.manifest.provenance["footage"] == "clip.mp4"
    np.testing.assert_array_equal(scene.depth(), wall_and_post())
    assert scene.source_camera().intrinsics[0, 0, 0] == pytest.approx(16 / np.tan(np.pi / 6))
    assert job.uploaded == job.upload_size == sum((clip / name).stat().st_size for name in ("clip.mp4", "depth.npz"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"], "nothing half is left"


def test_a_depth_video_is_sent_with_what_its_greys_mean(client, clip, tmp_path):
    grey = np.broadcast_to(np.linspace(40, 200, WIDTH).astype(np.uint8)[:, None], (HEIGHT, WIDTH, 3))
    with VideoWriter(clip / "depth.mkv", WIDTH, HEIGHT, 25, crf=4) as movie:
        for _ in range(FRAMES):
            movie.write(grey)
    settings = {"layout": "video", "values": "depth", "scale": 10.0}
    job = RemoteScene(tmp_path / "scene", plan(clip, "depth.mkv", **settings))
    status = client.run(job.conversation(), timeout=60)
    assert status.state == "done", status.reason
    depth = Scene.open(tmp_path / "scene").depth()
    assert np.abs(depth - grey[..., 1] * (10 / 255)).max() < 0.2


def test_a_finished_scene_can_be_fetched_from_the_command_line(service, client, clip, tmp_path):
    job = RemoteScene(tmp_path / "scene", plan(clip))
    client.run(job.conversation(), timeout=60)
    assert main(["jobs", "--backend", service.address, "--fetch", job.job, "-o", str(tmp_path / "fetched")]) == 0
    assert Scene.open(tmp_path / "fetched").digest == Scene.open(tmp_path / "scene").digest


def test_what_was_sent_or_made_there_is_not_sent_again(client, wire, clip, shot, tmp_path):
    client.run(RemoteScene(tmp_path / "first", plan(clip)).conversation(), timeout=60)
    second = RemoteScene(tmp_path / "second", plan(clip, name="again"))
    client.run(second.conversation(), timeout=60)
    assert second.upload_size == 0
    scene = Scene.open(tmp_path / "first")
    hashes = [scene.digest, *(scene.manifest.files[part].sha256 for part in RENDER_FILES)]
    assert wire.ask(BlobStatus(hashes)).received == [-1] * 4, "a take uploads nothing of a scene reconstructed there"
    request = shot().__class__(scene.digest, scene.source_camera().frames(0, 2))
    take = RemoteTake(tmp_path / "take", request, scene)
    assert client.run(take.conversation(), timeout=60).state == "done"
    assert take.upload_size == 0


def test_a_motion_mask_is_sent_along_and_stays_with_the_scene(client, wire, clip, shot, tmp_path):
    masks = np.arange(FRAMES * HEIGHT * WIDTH).reshape(FRAMES, HEIGHT, WIDTH) % 5 == 0
    for number, mask in enumerate(masks):
        write_png(tmp_path / f"roto_{number}.png", np.repeat(mask[..., None], 3, axis=2) * np.uint8(255))
    files = tuple(sorted(tmp_path.glob("*.png")))
    status = client.run(RemoteScene(tmp_path / "scene", plan(clip, mask_files=files)).conversation(), timeout=60)
    assert status.state == "done", status.reason
    scene = Scene.open(tmp_path / "scene")
    np.testing.assert_array_equal(scene.motion_mask(), masks)
    assert scene.manifest.provenance["motion mask"] == "roto_0.png"
    request = shot().__class__(scene.digest, scene.source_camera().frames(0, 2))
    take = RemoteTake(tmp_path / "take", request, scene)
    assert client.run(take.conversation(), timeout=60).state == "done" and take.upload_size == 0
    # A backend that has all of a scene but its mask asks for it.
    other = remap_scene(scene, tmp_path / "other", None, mask=~masks)
    request = replace(request, scene=other.digest)
    take = RemoteTake(tmp_path / "other take", request, other)
    assert client.run(take.conversation(), timeout=60).state == "done"
    assert take.upload_size == other.path("motion_mask").stat().st_size + len(other.manifest_bytes)
    short = client.run(RemoteScene(tmp_path / "no", plan(clip, mask_files=files[:-1])).conversation(), timeout=60)
    assert short.state == "failed" and short.reason.startswith(f"mask: the motion mask has {FRAMES - 1} frames")


def test_images_and_depth_images_keep_their_order(client, clip, tmp_path):
    (tmp_path / "depth").mkdir()
    for index in range(FRAMES):
        gray = np.full((HEIGHT, WIDTH), 1000 * (index + 1), np.uint16)
        write_gray(tmp_path / "depth" / f"z{index}.png", gray)
    images = tuple(sorted((clip / "images").iterdir()))
    depths = tuple(sorted((tmp_path / "depth").iterdir()))
    wanted = plan(clip, footage=images, depth_files=depths, layout="png", scale=0.001, fps=(12, 1))
    status = client.run(RemoteScene(tmp_path / "scene", wanted).conversation(), timeout=60)
    assert status.state == "done", status.reason
    scene = Scene.open(tmp_path / "scene")
    assert scene.manifest.fps == 12
    np.testing.assert_allclose(scene.depth()[:, 0, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(scene.color()[3], image(3))


def write_camera(path: Path, frames: int = FRAMES) -> Path:
    """A camera that trucks to the right, 0.1 a frame, with a lens of 40 pixels."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = -0.1 * np.arange(frames)
    lens = np.tile(intrinsics_matrix(40.0, 40.0, WIDTH / 2, HEIGHT / 2), (frames, 1, 1))
    CameraPath(poses, lens, WIDTH, HEIGHT).save(path)
    return path


def test_the_camera_that_filmed_it_may_have_moved(client, clip, tmp_path):
    wanted = plan(clip, camera_files=(write_camera(tmp_path / "solved.npz"),), camera_scale=2.0)
    job = RemoteScene(tmp_path / "scene", wanted)
    status = client.run(job.conversation(), timeout=60)
    assert status.state == "done", status.reason
    scene = Scene.open(tmp_path / "scene")
    camera = scene.source_camera()
    np.testing.assert_allclose(camera.camera_to_world[:, 0, 3], 0.2 * np.arange(FRAMES), atol=1e-9)
    assert camera.intrinsics[0, 0, 0] == 40 and scene.manifest.provenance["focal length"].endswith("solved.npz")


def test_colmaps_files_are_known_by_their_names(client, clip, tmp_path):
    (tmp_path / "cameras.txt").write_text(f"1 SIMPLE_PINHOLE {WIDTH} {HEIGHT} 40 {WIDTH / 2} {HEIGHT / 2}\n")
    poses = [f"{index + 1} 1 0 0 0 {-0.1 * index} 0 0 1 {index}.png\n\n" for index in range(FRAMES)]
    (tmp_path / "images.txt").write_text("".join(poses))
    files = (tmp_path / "cameras.txt", tmp_path / "images.txt")
    wanted = plan(clip, camera_files=files)
    status = client.run(RemoteScene(tmp_path / "scene", wanted).conversation(), timeout=60)
    assert status.state == "done", status.reason
    camera = Scene.open(tmp_path / "scene").source_camera()
    np.testing.assert_allclose(camera.camera_to_world[:, 0, 3], 0.1 * np.arange(FRAMES), atol=1e-9)
    # Points of a wall at half the distance that the depth says, which the scene then tells.
    rows, columns = np.mgrid[2:HEIGHT:4, 2:WIDTH:4]
    lines, points = [], []
    for number, (x, y) in enumerate(zip(columns.ravel(), rows.ravel(), strict=True)):
        points.append(f"{number} {2 * (x - WIDTH / 2) / 40} {2 * (y - HEIGHT / 2) / 40} 2 0 0 0 0.5")
    for index, pose in enumerate(poses):
        seen = [
            f"{x - 0.1 * index * 20} {y} {number}"
            for number, (x, y) in enumerate(zip(columns.ravel(), rows.ravel(), strict=True))
        ]
        lines += [pose.strip(), " ".join(seen)]
    (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "points3D.txt").write_text("\n".join(points) + "\n")
    wanted = plan(clip, camera_files=(*files, tmp_path / "points3D.txt"))
    status = client.run(RemoteScene(tmp_path / "with_points", wanted).conversation(), timeout=60)
    assert status.state == "done", status.reason
    notes = Scene.open(tmp_path / "with_points").manifest.provenance["source camera notes"]
    assert "camera scale of 2" in notes


def test_the_backend_solves_for_the_camera_of_moving_footage(client, tmp_path):
    pytest.importorskip("pycolmap", reason="solving cameras needs the extra colmap")
    frames, info = 7, probe(MOVING / "footage.mp4")
    with VideoWriter(tmp_path / "walk.mp4", info.width, info.height, info.fps, crf=4) as movie:
        for frame in read_frames(info.path, count=frames):
            movie.write(frame)
    depth = np.stack(list(DepthFiles(MOVING / "depth.npz").estimate(info)))[:frames]
    np.savez(tmp_path / "depth.npz", depth=depth)
    solving = plan(tmp_path, footage=(tmp_path / "walk.mp4",), camera_motion="solve", focal_px=270.2)
    status = client.run(RemoteScene(tmp_path / "scene", solving).conversation(), timeout=120)
    assert status.state == "done", status.reason
    scene, truth = Scene.open(tmp_path / "scene"), CameraPath.load(MOVING / "camera.npz")
    way, known = (
        np.linalg.norm(one.camera_to_world[frames - 1, :3, 3] - one.camera_to_world[0, :3, 3])
        for one in (scene.source_camera(), truth)
    )
    assert way == pytest.approx(known, rel=0.15), "in the unit of the depth"
    assert "solved from" in scene.manifest.provenance["source camera"]


def test_the_reference_convention_takes_ex4ds_lens_as_the_command_line_does(client, clip, tmp_path):
    """Even of depth that knows a lens; but not against the artist's word."""
    lens = intrinsics_matrix(40.0, 40.0, WIDTH / 2, HEIGHT / 2)
    np.savez(tmp_path / "knows.npz", depth=wall_and_post(), intrinsics=lens)
    wanted = {"depth_files": (tmp_path / "knows.npz",), "convention": "reference"}
    for name, changes, focal_px in (
        ("reference", wanted, 500),
        ("stated", {**wanted, "fov_degrees": 90.0}, 16),
        ("centered", {**wanted, "convention": "centered"}, 40),
    ):
        here = RemoteScene(tmp_path / name, plan(clip, **changes))
        status = client.run(here.conversation(), timeout=60)
        assert status.state == "done", status.reason
        scene = Scene.open(tmp_path / name)
        assert scene.source_camera().intrinsics[0, 0, 0] == pytest.approx(focal_px)
    command = ["reconstruct", str(clip / "clip.mp4"), "--depth", str(tmp_path / "knows.npz")]
    assert main([*command, "--convention", "reference", "-o", str(tmp_path / "cli")]) == 0
    provenance = [Scene.open(tmp_path / name).manifest.provenance["focal length"] for name in ("cli", "reference")]
    assert provenance[0] == provenance[1]


def write_mist(folder: Path) -> tuple[Path, ...]:
    """Mist that is half full everywhere, after which the sky begins: full in the first row."""
    folder.mkdir(exist_ok=True)
    mist = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    mist[0] = 1.0
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for index in range(FRAMES):
        OpenEXR.File(header, {"Mist.V": mist}).write(str(folder / f"{index}.exr"))
    return tuple(sorted(folder.iterdir()))


def test_a_mist_pass_becomes_depth_through_the_lens(client, clip, tmp_path):
    mist = {"depth_files": write_mist(tmp_path / "mist"), "layout": "exr", "invalid": "far", "mist": MistPass(2, 8)}
    wanted = plan(clip, **mist, fov_degrees=60.0)
    status = client.run(RemoteScene(tmp_path / "scene", wanted).conversation(), timeout=60)
    assert status.state == "done", status.reason
    depth = Scene.open(tmp_path / "scene").depth()
    focal = 16 / np.tan(np.pi / 6)
    # 2 + 8 x 0.5 along the ray; the pixel beside the principal point is half a pixel off it either way.
    assert depth[0, HEIGHT // 2, WIDTH // 2] == pytest.approx(6 / np.hypot(np.hypot(0.5, 0.5), focal) * focal, rel=1e-4)
    assert depth[0, HEIGHT - 1, 0] < 0.9 * depth[0, HEIGHT // 2, WIDTH // 2], "farther off the axis, nearer along it"


def write_gray(path: Path, values: np.ndarray) -> None:
    import av

    frame = av.VideoFrame.from_ndarray(values, format="gray16le").reformat(format="gray16be")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = values.shape[1], values.shape[0], "gray16be"
    encoder.time_base = Fraction(1, 24)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": "estimator", "depth_files": (), "estimator": "best"}, "'best'"),
        ({"depth": "short.npz"}, "short.npz: has depth for 3 frames"),
        ({"depth": "torn.npz"}, "torn.npz"),
        ({"camera_files": ("few.npz",)}, "few.npz: has 3 cameras"),
        ({"depth_files": ("mist/*",), "layout": "exr", "mist": MistPass(2, 8)}, "a mist pass"),
    ],
)
def test_what_cannot_be_reconstructed_says_why(client, clip, tmp_path, changes, says):
    np.savez(clip / "short.npz", depth=wall_and_post()[:3])
    (clip / "torn.npz").write_bytes((clip / "depth.npz").read_bytes()[:300])
    write_camera(clip / "few.npz", 3)
    write_mist(clip / "mist")
    for name in {"camera_files", "depth_files"} & set(changes):
        changes = {**changes, name: tuple(path for one in changes[name] for path in sorted(clip.glob(one)))}
    status = client.run(RemoteScene(tmp_path / "scene", plan(clip, **changes)).conversation(), timeout=60)
    assert status.state == "failed" and says in status.reason
    assert "/work/" not in status.reason and "blobs" not in status.reason, "the backend's own paths are its own"
    assert not (tmp_path / "scene").exists() and not any(tmp_path.iterdir())


def test_a_request_without_its_files_is_refused(wire, clip):
    request = plan(clip).request({clip / "clip.mp4": "1" * 64, clip / "depth.npz": "2" * 64})
    reply = wire.ask(Submit("lonely", request.to_wire()))
    assert isinstance(reply, Error) and reply.code == "unknown-blob" and "clip.mp4" in reply.text


def test_a_folder_that_is_something_else_is_left_alone(client, clip, tmp_path):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "diary.txt").write_text("dear")
    with pytest.raises(ValueError, match="something else"):
        client.run(RemoteScene(tmp_path / "scene", plan(clip)).conversation(), timeout=60)
    assert (tmp_path / "scene" / "diary.txt").read_text() == "dear"


def test_a_plan_that_cannot_be_carried_out_is_refused_here(client, clip, tmp_path):
    with pytest.raises((RequestRefused, ValueError), match="footage must be one video"):
        client.run(RemoteScene(tmp_path / "s", plan(clip, footage=(clip / "depth.npz",))).conversation(), timeout=60)


def test_an_interrupted_reconstruction_goes_on(service, clip, tmp_path):
    first = Client(service.address)
    job = RemoteScene(tmp_path / "scene", plan(clip))
    task = first.start(job.conversation())
    while not job.job:
        first.wait()
    assert not task.done
    first.close()
    again = Client(service.address)
    resumed = RemoteScene(tmp_path / "scene", key=job.key, job=job.job, last_event=job.last_event)
    assert again.run(resumed.conversation(), timeout=60).state == "done"
    again.close()
    assert Scene.open(tmp_path / "scene").manifest.frames == FRAMES
