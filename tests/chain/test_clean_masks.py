"""Masks that are held steady: cheap to trust, since a frame does not depend on which others are rendered with it."""

from __future__ import annotations

import numpy as np
import pytest

from ex4d.pipeline.array_clip import ArrayClip
from ex4d.pipeline.render import render_shot
from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.render_settings import RenderSettings

FRAMES, HEIGHT, WIDTH, FOCAL = 8, 60, 80, 80.0


@pytest.fixture(scope="module")
def flickering_post() -> ArrayClip:
    """A post before a wall, under a camera and a world that stand still; depth puts its edges a pixel to and fro."""
    random = np.random.default_rng(3)
    depth = np.full((FRAMES, HEIGHT, WIDTH), 6.0)
    for frame in range(FRAMES):
        for row in range(HEIGHT):
            left, right = random.integers(-1, 2, 2)
            depth[frame, row, 35 + left : 45 + right] = 3.0
    color = np.full((FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8)
    return ArrayClip("post", depth, color, np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]))


@pytest.fixture(scope="module")
def aside(flickering_post) -> CameraPath:
    pose = look_at(np.array([[1.2, 0.0, 0.0]]), np.array([0.0, 0.0, 5.0])).repeat(FRAMES, 0)
    return CameraPath(pose, flickering_post.source_camera().intrinsics, WIDTH, HEIGHT)


def masks_of(clip: ArrayClip, camera: CameraPath, first_frame: int = 0, clean: bool | None = None) -> np.ndarray:
    settings = RenderSettings(occlusion="thickness", clean=clean)
    return np.stack(
        [frame.mask for frame in render_shot(clip, camera, settings, first_frame=first_frame, device="cpu")]
    )


def flips(masks: np.ndarray) -> float:
    return float((masks[1:] != masks[:-1]).mean())


def test_masks_flicker_less_than_the_depth_does(flickering_post, aside) -> None:
    as_drawn, cleaned = masks_of(flickering_post, aside, clean=False), masks_of(flickering_post, aside)
    assert flips(as_drawn) > 0.01
    assert flips(cleaned) < 0.7 * flips(as_drawn)


def test_a_part_of_a_shot_has_the_same_frames_as_the_whole(flickering_post, aside) -> None:
    whole = masks_of(flickering_post, aside)
    for first, stop in ((0, 3), (3, 4), (4, FRAMES)):
        part = masks_of(flickering_post, aside.frames(first, stop), first_frame=first)
        assert np.array_equal(part, whole[first:stop])


def test_a_shot_in_another_order_has_the_same_frames(flickering_post, aside) -> None:
    whole = masks_of(flickering_post, aside)
    order = [5, 2, 2, 7, 0]
    settings = RenderSettings(occlusion="thickness")
    shot = render_shot(flickering_post, aside.frames(0, len(order)), settings, source_frames=order, device="cpu")
    assert np.array_equal(np.stack([frame.mask for frame in shot]), whole[order])


def test_the_source_camera_still_sees_every_pixel(flickering_post) -> None:
    assert masks_of(flickering_post, flickering_post.source_camera()).all()
