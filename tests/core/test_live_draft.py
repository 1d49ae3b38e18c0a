"""The live draft of a shot: which frames, how large, and what it keeps of the shot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.live_draft import DRAFT_FRAMES, draft_places, live_draft
from ex4d_core.shot import ShotRequest
from ex4d_core.wan_settings import wan_preset


def shot(frames: int, width: int = 1920, height: int = 1080, **changes) -> ShotRequest:
    poses = np.repeat(np.eye(4)[None], frames, 0)
    poses[:, 0, 3] = np.arange(frames)
    intrinsics = np.repeat(intrinsics_matrix(width, width, width / 2, height / 2)[None], frames, 0)
    return ShotRequest("0" * 64, CameraPath(poses, intrinsics, width, height), **changes)


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (9, 9), (17, 17), (18, 17), (49, 17), (1000, 17)])
def test_a_draft_has_seventeen_frames_from_the_first_to_the_last(frames, count):
    places = draft_places(frames)
    assert len(places) == count <= DRAFT_FRAMES and (places[0], places[-1]) == (0, frames - 1)
    steps = np.diff(places)
    assert count == 1 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


_SIZES = [((1920, 1080), (512, 288)), ((512, 512), (384, 384)), ((48, 32), (48, 32))]


@pytest.mark.parametrize(("size", "draft"), _SIZES)
def test_a_draft_sees_what_the_shot_sees_in_a_small_image(size, draft):
    camera = shot(49, *size).camera
    request = live_draft(shot(49, *size, first_frame=5))
    assert request.camera.size == draft
    assert list(request.camera.world_to_camera[:, 0, 3]) == list(range(0, 49, 3))
    assert list(request.footage_frames) == list(range(5, 54, 3))
    relative = request.camera.intrinsics[0, 0] / draft[0]
    assert np.allclose(relative, camera.intrinsics[0, 0] / size[0])


def test_a_draft_keeps_prompts_and_seed_and_is_told_from_a_take():
    wan = wan_preset("quality", prompt="a wide street", negative_prompt="blurred", seed=7, adapter="mine")
    draft = live_draft(replace(shot(3), engine="wan", wan=wan))
    assert (draft.engine, draft.label, draft.wan.preset) == ("wan", "live draft", "live")
    assert (draft.wan.prompt, draft.wan.seed, draft.wan.adapter) == ("a wide street", 7, "mine")
    assert (draft.wan.steps, draft.wan.guidance, draft.wan.tiny_decoder) == (4, 1.0, True)
    assert ShotRequest.from_wire(draft.to_wire()).wan == draft.wan


def test_takes_of_older_versions_have_no_tiny_decoder():
    """And older services are not asked about it."""
    values = shot(3).to_wire()
    assert "tiny_decoder" not in values["wan"]
    assert not ShotRequest.from_wire(values).wan.tiny_decoder
