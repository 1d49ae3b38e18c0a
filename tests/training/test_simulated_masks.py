"""Simulated masks: those of camera moves as takes have them, and those of regions that stay with their scene points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import create_rasterizer
from ex4d.raster.speed import synthetic_surface
from ex4d.training.hidden_regions import LEVELS, NEVER, HiddenRegions, draw_regions
from ex4d.training.mask_morphology import cleaned, closed
from ex4d.training.mask_settings import TRAVELLING, MoveSettings, RegionSettings
from ex4d.training.rendered_masks import simulate_rendered
from ex4d.training.sampled_moves import SampledMove, draw_move, turned_degrees
from ex4d.training.simulated_masks import simulate_mask
from ex4d.training.tracked_masks import levels_by_mesh, simulate_tracked
from ex4d.training.unseen_share import distribution_rows, unseen_distribution
from ex4d_core.errors import RequestError
from ex4d_core.pivots import middle_distance
from ex4d_core.trajectories import PRESETS
from tests.training.moving_scenes import CARD, HEIGHT, WALL, WIDTH, card_left, sliding_scene

QUICK = MoveSettings(samples=1)


@pytest.fixture(scope="module")
def rasterizer():
    return create_rasterizer("warp", "cpu")


@pytest.fixture(scope="module")
def clip() -> DepthSurface:
    return synthetic_surface(7, 96, 64)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_every_move_starts_at_the_source_camera_and_shrinks_to_it(clip, weights):
    settings = MoveSettings(*weights)
    lens = clip.intrinsics.numpy()
    kinds = set()
    for seed in range(12):
        move = draw_move(settings, np.random.default_rng(seed))
        kinds.add(move.preset if move.kind == "preset" else move.kind)
        path = move.path(7, lens, clip.size, 3.0)
        np.testing.assert_allclose(path.world_to_camera[0], np.eye(4), atol=1e-9)
        np.testing.assert_allclose(path.intrinsics[0], lens[0], atol=1e-9)
        if "180" not in move.preset:
            still = move.path(7, lens, clip.size, 3.0, strength=0.0)
            np.testing.assert_allclose(still.world_to_camera, np.tile(np.eye(4), (7, 1, 1)), atol=1e-9)
            np.testing.assert_allclose(still.intrinsics, lens, atol=1e-9)
    assert len(kinds) > (4 if weights[1] else 0)


def test_orbits_span_the_angles_that_are_set():
    settings = MoveSettings(1, 0, 0, orbit=(-90, 90), elevation=(0, 0))
    lens = np.tile(np.diag([64.0, 64.0, 1.0]), (5, 1, 1))
    random = np.random.default_rng(0)
    angles = [turned_degrees(draw_move(settings, random).path(5, lens, (64, 48), 3.0), 3.0) for _ in range(200)]
    assert max(angles) > 85 and min(angles) < 5 and 40 < np.mean(angles) < 50


def drawn_presets(name: str, amount: tuple[float, float]) -> list[SampledMove]:
    settings = MoveSettings(0, 1, 0, presets=(name,), amount=amount)
    return [draw_move(settings, np.random.default_rng(seed)) for seed in range(20)]


def test_a_share_of_a_zoom_is_of_what_its_factor_has_above_1(clip):
    lens = clip.intrinsics.numpy()
    [move, *_] = drawn_presets("zoom_out", (1, 1))
    assert move.amount == PRESETS["zoom_out"][2] == 1.5
    assert move.path(7, lens, clip.size, 3.0).intrinsics[-1, 0, 0] == pytest.approx(lens[0, 0, 0] / 1.5)
    amounts = [move.amount for move in drawn_presets("zoom_out", (0.3, 1.5))]
    assert 1.15 <= min(amounts) < max(amounts) <= 1.75


@pytest.mark.parametrize("name", ["dolly_in", "dolly_zoom"])
def test_dollies_end_before_the_subject(clip, name):
    for move in drawn_presets(name, (3, 3)):
        assert 0 < move.path(7, clip.intrinsics.numpy(), clip.size, 3.0).camera_to_world[-1, 2, 3] < 3


def test_a_rendering_mask_is_what_the_rasterizer_leaves_unseen_of_the_watertight_mesh(clip, rasterizer):
    settings = replace(QUICK, orbit_weight=1, preset_weight=0, free_weight=0, morphology=(0, 0))
    mask = simulate_rendered(clip, settings, 3, rasterizer)
    assert mask is not None and mask.kind == "rendered"
    move = draw_move(settings, np.random.default_rng(3))
    path = move.path(7, clip.intrinsics.numpy(), clip.size, middle_distance(clip.depth[0].numpy()))
    expected = rasterizer.render(replace(clip, occlusion="watertight", clean=False), path).mask
    assert torch.equal(mask.seen, expected)
    assert mask.angle == pytest.approx(turned_degrees(path, middle_distance(clip.depth[0].numpy())))
    assert mask.seen[0].all() and not mask.seen[-1].all()


def test_poses_of_moving_footage_do_not_change_rendering_masks(rasterizer):
    moving = sliding_scene(5)
    still = replace(moving, camera_to_world=None)
    masks = [simulate_rendered(one, QUICK, 1, rasterizer) for one in (moving, still)]
    assert masks[0] is not None and masks[1] is not None and torch.equal(masks[0].seen, masks[1].seen)


def test_the_unseen_share_stays_within_its_limits_and_can_be_made_even(rasterizer):
    clip, shares = synthetic_surface(3, 48, 32), {}
    for balance in ("angle", "unseen"):
        settings = replace(QUICK, orbit_weight=1, preset_weight=0, free_weight=0, unseen=(0.1, 0.5), balance=balance)
        masks = [simulate_rendered(clip, settings, seed, rasterizer) for seed in range(20)]
        shares[balance] = np.array([mask.unseen for mask in masks if mask is not None])
        assert len(shares[balance]) > 15
        assert shares[balance].min() >= 0.1 and shares[balance].max() <= 0.5
    assert np.histogram(shares["unseen"], bins=4, range=(0.1, 0.5))[0].min() >= 2
    assert simulate_rendered(clip, replace(QUICK, unseen=(0.99, 1.0), tries=2), 0, rasterizer) is None


def test_the_seed_alone_decides(clip, rasterizer):
    def mask(seed: int) -> torch.Tensor:
        found = simulate_mask(clip, QUICK, RegionSettings(), 0.5, seed, rasterizer, camera_known=True)
        assert found is not None
        return found.seen

    assert torch.equal(mask(5), mask(5))
    assert not torch.equal(mask(5), mask(6))


def test_a_hidden_point_of_the_wall_stays_hidden_while_the_camera_slides(rasterizer):
    surface = sliding_scene(6, card=False)
    levels = torch.full((HEIGHT, WIDTH), NEVER, dtype=torch.int32)
    levels[8:24, 30:46] = 100
    found = levels_by_mesh(surface, HiddenRegions(2, levels, np.arange(6), ""), 0.05, rasterizer)
    for frame in range(6):
        expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        expected[9:23, 31 + 2 - frame : 45 + 2 - frame] = True  # the rim may fall between pixels
        assert (found[frame] == 100)[expected].all()
        expected[7:25, 29 + 2 - frame : 47 + 2 - frame] = True
        assert (found[frame] == NEVER)[~expected].all()


def test_hidden_regions_are_rendered_in_parts_that_fit_the_memory(rasterizer, monkeypatch):
    surface = sliding_scene(5)
    levels = torch.full((HEIGHT, WIDTH), NEVER, dtype=torch.int32)
    levels[16:32, 10:22] = 1
    regions = HiddenRegions(0, levels, np.arange(5), "")
    at_once = levels_by_mesh(surface, regions, 0.05, rasterizer)
    counts, render = [], rasterizer.render

    def counted(part, *others, **how):
        counts.append(part.frames)
        return render(part, *others, **how)

    monkeypatch.setattr(rasterizer, "render", counted)
    monkeypatch.setattr("ex4d.training.rendered_masks.CPU_BATCH_PIXELS", 2 * WIDTH * HEIGHT)
    assert torch.equal(levels_by_mesh(surface, regions, 0.05, rasterizer), at_once)
    assert counts == [2, 2, 1]


def test_what_passes_before_a_hidden_region_stays_seen(rasterizer):
    surface = sliding_scene(5)
    levels = torch.full((HEIGHT, WIDTH), NEVER, dtype=torch.int32)
    levels[16:32, 10:22] = 1  # of the wall, left of the card, which moves over it
    found = levels_by_mesh(surface, HiddenRegions(0, levels, np.arange(5), ""), 0.05, rasterizer)
    last = slice(card_left(4) + 1, card_left(4) + 15)
    assert surface.depth[4, 24, last].eq(CARD).all() and (found[4, 24, last] == NEVER).all()
    assert surface.depth[4, 24, 8] == WALL and (found[4, 18:30, 8 : card_left(4) - 1] == 1).all()


@pytest.mark.parametrize("tracks", ["mesh", "flow"])
def test_regions_open_over_time_and_follow_the_wall(rasterizer, tracks):
    if tracks == "flow":
        pytest.importorskip("skimage", reason="tracks by optical flow need the extra train")
    surface = sliding_scene(5, card=False)
    settings = RegionSettings(regions=(1, 1), region_size=(0.35, 0.4), at_edges=0, tracks=tracks)
    mask = simulate_tracked(surface, settings, (0.02, 0.9), 20, 2, rasterizer, camera_known=False)
    assert mask is not None and mask.kind == "tracked"
    hidden = ~mask.seen
    areas = hidden.flatten(1).sum(1)
    assert areas[0] == 0 and areas[-1] > 0 and (areas[1:] >= areas[:-1] - 12).all()
    for frame in range(1, 4):  # of what is hidden, nearly all is hidden a frame later, one pixel to the left
        before, after = hidden[frame, :, 4:-4], hidden[frame + 1, :, 3:-5]
        assert (before & after).sum() > 0.9 * before.sum()


def test_regions_begin_behind_edges_in_depth(rasterizer):
    surface = sliding_scene(1)
    settings = RegionSettings(regions=(1, 1), region_size=(0.05, 0.05), at_edges=1)
    for seed in range(10):
        regions = draw_regions(surface.depth[0], 5, 0, settings, np.random.default_rng(seed))
        row, column = np.argwhere(regions.levels.numpy() == regions.levels.min().item())[0]
        assert surface.depth[0, row, column] == WALL
        near = surface.depth[0, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        assert (near == CARD).any()
        assert regions.opened[0] == 0 and regions.opened[-1] == LEVELS


def test_auto_follows_the_mesh_where_the_camera_is_known(rasterizer):
    surface = sliding_scene(3)
    for known, words in ((True, "by the mesh"), (False, "by optical flow")):
        if not known:
            pytest.importorskip("skimage", reason="tracks by optical flow need the extra train")
        mask = simulate_tracked(surface, RegionSettings(), (0, 1), 1, 0, rasterizer, camera_known=known)
        assert mask is not None and words in mask.words


def test_morphology_removes_specks_and_slits_only():
    mask = torch.ones(1, 20, 20, dtype=torch.bool)
    mask[0, :, 12:] = False
    mask[0, 5, 5] = False  # an unseen speck
    mask[0, 8, 16] = True  # a seen one
    clean = cleaned(mask, 1)
    assert clean[0, 5, 5] and not clean[0, 8, 16] and torch.equal(clean[0, 12:], mask[0, 12:])
    assert cleaned(mask, 0) is mask
    region = torch.zeros(1, 9, 9, dtype=torch.bool)
    region[0, 2:7, [2, 3, 5, 6]] = True
    assert closed(region, 1)[0, 2:7, 2:7].all() and closed(region, 1).sum() == 25


def test_the_distribution_counts_by_angle():
    masks = [("rendered", 10, 0.1), ("rendered", 14, 0.3), ("rendered", 50, 0.5), ("rendered", 179, 0.7)]
    found = unseen_distribution([*masks, ("tracked", 0, 0.2)])
    assert [(row["from"], row["to"], row["count"], row["mean"]) for row in found["rendered"]] == [
        (0, 15, 2, 0.2),
        (45, 60, 1, 0.5),
        (90, 180, 1, 0.7),
    ]
    assert found["tracked"][0]["quantiles"] == [0.2, 0.2, 0.2]
    assert distribution_rows(found)[0] == ("rendered, 0 to 15 degrees", "2", "20%", "12% / 20% / 28%")


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (MoveSettings, {"orbit": (30, -30)}, "orbit"),
        (MoveSettings, {"unseen": (0.1, 1.2)}, "unseen"),
        (MoveSettings, {"orbit_weight": 0, "preset_weight": 0, "free_weight": 0}, "all 0"),
        (MoveSettings, {"presets": ("spin",)}, "'spin'"),
        (MoveSettings, {"presets": ("truck", "-0.0")}, "'-0.0' in presets turns by 0 degrees"),
        (RegionSettings, {"regions": (0, 2)}, "regions"),
        (RegionSettings, {"region_size": (0.4, 0.1)}, "region_size"),
    ],
)
def test_distributions_that_make_no_sense_are_refused(kind, values, named):
    with pytest.raises(RequestError, match=named):
        kind(**values)


def test_all_travelling_presets_exist():
    assert len(MoveSettings(presets=TRAVELLING).presets) == len(TRAVELLING) > 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tracked", [0.0, 1.0])
def test_a_gpu_simulates_the_masks_that_a_processor_does(rasterizer, tracked):
    surface = sliding_scene(5)
    regions = RegionSettings(tracks="mesh")
    masks = [
        simulate_mask(surface.to(one.device), QUICK, regions, tracked, 4, one, camera_known=True)
        for one in (rasterizer, create_rasterizer("warp", "cuda"))
    ]
    assert masks[0] is not None and masks[1] is not None and masks[0].words == masks[1].words
    assert (masks[0].seen != masks[1].seen.cpu()).float().mean() < 0.01
