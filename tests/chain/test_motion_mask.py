"""The artist's mask of what moves: from files to the scene package, and what the clip's memory makes of it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.depth.camera_fit import KeyFrames, fit_to_camera
from ex4d.media import VideoWriter, write_png
from ex4d.pipeline.render import render_shot
from ex4d_core.cameras import CameraPath
from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.errors import Ex4dError
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.scene_remap import remap_scene
from tests.chain.ball_clip import FRAMES, HEIGHT, WIDTH, beside, filmed, travelling, written

THICKNESS = RenderSettings(occlusion="thickness", remember=True)
RIGHT = 2.0  # x in the world, from which on the masks of these tests cover everything


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    camera = travelling()
    return written(tmp_path_factory.mktemp("clip") / "scene", camera, [filmed(p) for p in camera.world_to_camera])


def world_x(camera: CameraPath, depth: np.ndarray) -> np.ndarray:
    """(H, W) x in the world of what one camera sees at a depth."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.intrinsics[0]).T * depth[..., None]
    pose = camera.camera_to_world[0]
    return (points @ pose[:3, :3].T + pose[:3, 3])[..., 0]


def masks_of(scene: Scene) -> np.ndarray:
    """(T, H, W) bool: everything on the right."""
    camera = scene.source_camera()
    return np.stack([world_x(camera.frames(k, k + 1), scene.depth()[k]) > RIGHT for k in range(FRAMES)])


def images_in(folder: Path, masks: np.ndarray) -> Path:
    folder.mkdir()
    for number, mask in enumerate(masks):
        write_png(folder / f"mask_{number:03d}.png", np.repeat(mask[..., None], 3, axis=2) * np.uint8(255))
    return folder


def test_what_a_mask_covers_is_not_remembered_and_the_rest_stays(scene, tmp_path):
    masked = remap_scene(scene, tmp_path / "masked", None, mask=masks_of(scene))
    view = beside(scene, 6)
    (plain,), (frame,) = (
        list(render_shot(one, view, THICKNESS, first_frame=6, device="cpu")) for one in (scene, masked)
    )
    _, depth = filmed(view.world_to_camera[0])
    at = world_x(view, depth)
    assert plain.remembered[at > RIGHT].sum() > 30 and plain.remembered[at < RIGHT - 0.1].sum() > 30
    assert not frame.remembered[at > RIGHT].any()
    kept = at < RIGHT - 0.2  # beside the mask a pixel shows a mixture of both
    np.testing.assert_array_equal(frame.remembered[kept], plain.remembered[kept])
    # The frame itself shows what moves in it.
    np.testing.assert_array_equal(frame.mask, plain.mask)
    np.testing.assert_array_equal(frame.color[frame.mask], plain.color[plain.mask])


def test_a_masked_frame_proves_nothing_about_the_others(tmp_path):
    """Most of the picture changes from frame to frame: without a mask the frames seem to contradict each other."""
    camera, random = travelling(), np.random.default_rng(0)
    images = [filmed(pose) for pose in camera.world_to_camera]
    for image, _ in images:
        image[:, :64] = random.integers(0, 255, (HEIGHT, 64, 3))
    clip = written(tmp_path / "scene", camera, images)
    changing = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    changing[:, :, :64] = True
    masked = remap_scene(clip, tmp_path / "masked", None, mask=changing)
    counts, notes = [], ([], [])
    for one, said in zip((clip, masked), notes, strict=True):
        how = {"first_frame": 6, "device": "cpu", "note": said.append}
        (frame,) = render_shot(one, beside(one, 6), THICKNESS, **how)
        counts.append(int(frame.remembered.sum()))
    assert any("contradict" in text for text in notes[0]) and not notes[1]
    assert counts[1] > counts[0] + 100, counts


def test_with_everything_masked_nothing_is_remembered_and_that_is_said(scene, tmp_path):
    everything = np.ones((FRAMES, HEIGHT, WIDTH), bool)
    masked = remap_scene(scene, tmp_path / "masked", None, mask=everything)
    notes: list[str] = []
    (frame,) = render_shot(masked, beside(scene, 3), THICKNESS, first_frame=3, device="cpu", note=notes.append)
    assert not frame.remembered.any()
    assert len(notes) == 1 and f"0 to {FRAMES - 1}" in notes[0]


@pytest.fixture(scope="module")
def clip(scene, tmp_path_factory) -> Path:
    """The footage and its depth, as files."""
    folder = tmp_path_factory.mktemp("files")
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, Fraction(24)) as movie:
        for image in scene.color():
            movie.write(image)
    np.savez(folder / "depth.npz", depth=np.array(scene.depth()))
    return folder


def reconstructed(clip: Path, mask: Path, **how) -> tuple[Scene, list[str]]:
    notes: list[str] = []
    folder = mask.parent / f"{mask.stem}_scene"
    made = ex4d.reconstruct(clip / "clip.mp4", folder, depth=clip / "depth.npz", mask=mask, note=notes.append, **how)
    return made, notes


def test_images_of_another_size_are_resized_to_the_footages_own_pixels(scene, clip, tmp_path):
    masks = np.repeat(np.repeat(masks_of(scene)[:, ::2, ::2], 2, axis=1), 2, axis=2)
    made, notes = reconstructed(clip, images_in(tmp_path / "half", masks[:, ::2, ::2]))
    np.testing.assert_array_equal(made.motion_mask(), masks)
    assert any(f"{WIDTH // 2}x{HEIGHT // 2} to {WIDTH}x{HEIGHT}" in text for text in notes)
    assert made.manifest.provenance["motion mask"] == "half"
    assert json.loads(made.manifest_bytes)["version"] == 4, "programs of before must not open it without its mask"


def test_a_video_is_a_mask_too_and_a_part_of_the_footage_takes_its_part(clip, scene, tmp_path):
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    masks[:, 16:48, 32:64] = True
    with VideoWriter(tmp_path / "mask.mp4", WIDTH, HEIGHT, Fraction(24)) as movie:
        for mask in masks:
            movie.write(np.repeat(mask[..., None], 3, axis=2) * np.uint8(255))
    made, _ = reconstructed(clip, tmp_path / "mask.mp4", frames=5)
    np.testing.assert_array_equal(made.motion_mask(), masks[:5])


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (np.ones((FRAMES - 1, HEIGHT, WIDTH), bool), f"{FRAMES - 1} frames.*{FRAMES}"),
        (np.ones((FRAMES, HEIGHT, HEIGHT), bool), f"{HEIGHT}x{HEIGHT}.*{WIDTH}x{HEIGHT}"),
        (np.ones((0, HEIGHT, WIDTH), bool), "holds no images"),
    ],
    ids=["number", "shape", "empty"],
)
def test_a_mask_that_does_not_fit_is_refused_and_no_scene_is_made(clip, tmp_path, masks, says):
    with pytest.raises(Ex4dError, match=says):
        reconstructed(clip, images_in(tmp_path / "mask", masks))
    assert [path.name for path in tmp_path.iterdir()] == ["mask"]


@pytest.mark.parametrize(("white", "says"), [(True, "white in all frames"), (False, "black in all frames")])
def test_a_mask_that_says_nothing_is_named(clip, tmp_path, white, says):
    made, notes = reconstructed(clip, images_in(tmp_path / "mask", np.full((FRAMES, HEIGHT, WIDTH), white)))
    assert any(says in text for text in notes)
    assert made.motion_mask().all() == white


def test_a_scene_that_exists_gets_a_mask_and_keeps_it(scene, tmp_path, capsys):
    masks = masks_of(scene)
    folder, made = scene.path("depth").parent, tmp_path / "masked"
    arguments = ["remap", str(folder), "-o", str(made), "--motion-mask", str(images_in(tmp_path / "mask", masks))]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["motion_mask"] == {"source": "mask"}
    masked = Scene.open(made)
    np.testing.assert_array_equal(masked.motion_mask(), masks)
    parts = set(scene.manifest.files)
    assert {part: masked.manifest.files[part] for part in parts} == dict(scene.manifest.files), "depth stays, too"
    assert Scene.open(folder).motion_mask() is None and json.loads(scene.manifest_bytes)["version"] == 3
    again = remap_scene(masked, tmp_path / "again", DepthMapping(masked.manifest.mapping.nearest, 0.1))
    np.testing.assert_array_equal(again.motion_mask(), masks)
    assert main([*arguments[:-1], str(tmp_path / "nowhere"), "--overwrite"]) == 1
    assert "nowhere" in capsys.readouterr().err and Scene.open(made).digest == masked.digest


def test_a_fit_to_the_camera_leaves_out_what_moves(scene):
    """Most of the picture moves along with the camera, which contradicts its poses."""
    camera, mapping = scene.source_camera(), DepthMapping(1.0)
    still = filmed(camera.world_to_camera[0])[0]
    moving = np.zeros((HEIGHT, WIDTH), bool)
    moving[:, :72] = True
    pairs = []
    for image, depth in zip(scene.color(), scene.depth(), strict=True):
        pairs.append((np.where(moving[..., None], still, image), depth.min() / depth))
    with_mask, without = (KeyFrames(pairs, FRAMES, masks=masks) for masks in ([moving] * FRAMES, None))
    fit = fit_to_camera(with_mask, camera, mapping)
    assert fit is not None and fit.error < 0.5
    try:
        wrong = fit_to_camera(without, camera, mapping)
    except Ex4dError:
        return
    assert wrong is None or abs(wrong.mapping.nearest / fit.mapping.nearest - 1) > 0.1
