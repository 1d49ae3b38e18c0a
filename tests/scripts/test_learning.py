"""The experiment of `ex4d bench train --part learning`: its scenes, masks and scores, and a run of a few steps."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
pytest.importorskip("peft", reason="training needs the extra train")

from bench import TOYS
from bench.learning import SHARE_TARGET, Learning, Score, measure_learning, summary
from bench.learning_sizes import EXPERIMENTS
from bench.new_view_task import conditioning_of, new_view_task, to_video
from bench.packed_clips import PackedTransformer, clip_of, packed_dataset
from bench.toy_clips import Clips, filmed, new_cameras, random_clips, rectangular_masks, simulated_masks, true_views
from bench.toy_scenes import orbit_poses, random_cameras, random_scenes
from bench.trained_toy import LinearCodec
from ex4d.generation.wan.conditioning import WorkingSize, image_to_video_input, window_pixels
from ex4d.generation.wan.networks import open_dit
from ex4d.raster import RenderedFrame
from ex4d.training.adapter import Building, build_trained, count_parameters
from ex4d.training.mask_settings import MoveSettings
from ex4d.training.run_folder import RunFolder
from ex4d_core.errors import RequestError

TINY = EXPERIMENTS["tiny"]
SMALL = dataclasses.replace(
    TINY,
    side=16,
    frames=5,
    layers=1,
    ffn=64,
    clips=8,
    masks=1,
    base_steps=24,
    base_batch=4,
    settings=dataclasses.replace(TINY.settings, steps=4, warmup=1, keep_every=2, sample_every=0),
    pack=4,
    evaluated=1,
)


@pytest.fixture(scope="module")
def clips() -> Clips:
    return random_clips(3, 5, 32, seed=4, device="cpu")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A finished experiment of a few steps, and its losses."""
    learning = Learning(SMALL, tmp_path_factory.mktemp("learning"), torch.device("cpu"))
    losses = learning.train_base()
    learning.run("simulated", 0)
    return learning, losses


class TestScenes:
    def test_every_pixel_of_a_camera_is_visible_to_it(self):
        scenes, cameras = random_scenes(2, 1), random_cameras(2, 5, 24, 2, moving=1.0)
        seen = scenes.cast(cameras)
        assert scenes.visible(seen.points, cameras).float().mean() > 0.999

    def test_a_camera_that_has_turned_away_sees_nothing_of_them(self):
        scenes, cameras = random_scenes(1, 1), random_cameras(1, 5, 24, 2, moving=0.0)
        behind = cameras.moved(torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])).expand(1, 5, 4, 4))
        assert not scenes.visible(scenes.cast(cameras).points, behind).any()

    def test_points_lie_at_the_depth_along_the_cameras_axis(self):
        cameras = random_cameras(1, 5, 24, 2, moving=1.0)
        seen = random_scenes(1, 1).cast(cameras)
        pose = cameras.camera_to_world[:, :, None, None]
        along = ((seen.points - pose[..., :3, 3]) * pose[..., :3, 2]).sum(-1)
        torch.testing.assert_close(along, seen.depth, rtol=1e-4, atol=1e-4)

    def test_orbits_keep_looking_at_the_pivot(self):
        poses = orbit_poses(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.3]]))
        torch.testing.assert_close(poses[0, 0], torch.eye(4))
        assert torch.linalg.det(poses[0, 1, :3, :3]).item() == pytest.approx(1, abs=1e-5)
        to_pivot = torch.tensor([0.0, 0.0, 4.0]) - poses[0, 1, :3, 3]
        torch.testing.assert_close(to_pivot / to_pivot.norm(), poses[0, 1, :3, 2])

    def test_moving_objects_are_what_changes_for_a_camera_that_stands_still(self):
        scenes = random_scenes(1, 3)
        still = dataclasses.replace(scenes, velocities=torch.zeros_like(scenes.velocities))
        cameras = random_cameras(1, 5, 24, 2, moving=0.0)
        of_still, of_moving = still.cast(cameras).color, scenes.cast(cameras).color
        assert (of_still[:, 0] == of_still[:, -1]).all() and (of_moving[:, 0] != of_moving[:, -1]).any()

    def test_equal_seeds_give_equal_clips(self, clips):
        assert torch.equal(random_clips(3, 5, 32, seed=4, device="cpu").color, clips.color)
        assert not torch.equal(random_clips(3, 5, 32, seed=5, device="cpu").color, clips.color)


class TestMasks:
    def test_a_clips_mesh_from_its_own_camera_shows_the_clip(self, clips):
        color, mask = clips.rendered(clips.cameras)
        assert mask.float().mean() > 0.97
        assert (color[mask].int() - clips.color[mask]).abs().float().mean() < 2

    def test_the_mesh_shows_in_new_views_what_is_really_there(self):
        scenes, cameras = random_scenes(3, 1), random_cameras(3, 5, 48, 2, moving=0.5)
        clips = filmed(scenes, cameras, "cpu")
        moved = new_cameras(clips, seed=3)
        (color, mask), views = clips.rendered(moved), true_views(scenes, clips, moved)
        assert (mask == views.visible).float().mean() > 0.85
        both = mask & views.visible
        assert (color[both].int() - views.color[both]).abs().float().mean() < 8
        assert 0.05 < 1 - views.visible[:, -1].float().mean() < 0.8

    @pytest.mark.parametrize("tracked", [0.0, 1.0], ids=["rendered", "tracked"])
    def test_simulated_masks_show_the_first_frame_and_hide_more_later(self, clips, tracked):
        moves = MoveSettings(orbit=(40.0, 60.0), preset_weight=0, free_weight=0, samples=1, morphology=(0, 0))
        masks = simulated_masks(clips, moves, tracked, seed=2)
        shares = 1 - masks.float().mean(dim=(0, 2, 3))
        assert shares[0] < 0.02 and shares[-1] > 0.02
        assert torch.equal(masks, simulated_masks(clips, moves, tracked, seed=2))

    def test_rectangles_hide_as_much_from_the_second_frame_on(self):
        shares = torch.tensor([0.1, 0.4])
        masks = rectangular_masks(shares, frames=5, side=32, seed=1)
        assert masks[:, 0].all()
        torch.testing.assert_close(1 - masks.float().mean(dim=(1, 2, 3)), shares, atol=0.1, rtol=0)
        assert torch.equal(masks[:, 1], masks[:, -1])


class TestConditioning:
    def test_the_codec_is_nearly_lossless(self, clips):
        video = to_video(clips.color)
        codec = LinearCodec(video, side=2, whitening=0.3)
        error = (codec.decode(codec.encode(video)) - video).square().mean()
        assert 10 * math.log10(4 / error) > 26

    def test_it_is_the_engines(self, clips):
        video, side = to_video(clips.color), 32
        codec = LinearCodec(video, side=2, whitening=0.3)
        mask = rectangular_masks(torch.full((3,), 0.2), 5, side, seed=1)
        made = clip_of(conditioning_of(codec, video, mask), 1)
        frames = [
            RenderedFrame(index, color.numpy(), own.numpy(), np.ones((side, side), np.float32))
            for index, (color, own) in enumerate(zip(clips.color[1], mask[1], strict=True))
        ]
        pixels = window_pixels(frames, [0] * 5, WorkingSize.of(side, side, 10**6))
        control = torch.cat([codec.encode(pixels.color), codec.encode(pixels.mask)], dim=1)
        torch.testing.assert_close(made.control_latents, control, atol=1e-4, rtol=1e-4)
        image = codec.encode(image_to_video_input(pixels.color[:, :, :1], 5))
        torch.testing.assert_close(made.image_latents[:, 4:], image, atol=1e-4, rtol=1e-4)
        assert made.image_latents[0, :4, 0].min() == 1 and made.image_latents[0, :4, 1:].max() == 0

    def test_clips_of_a_pack_see_nothing_of_each_other(self, learned):
        learning, _ = learned
        latents, conditioning = learning.masked("rectangles", 0)
        dataset = packed_dataset(latents, conditioning, 4, side=16, mask="other", made_of="")
        (pack, *_) = dataset.samples(dataset.manifest.shards[0])
        packed = dataclasses.replace(
            conditioning,
            prompt_embeds=conditioning.prompt_embeds[:1],
            control_latents=pack.control_latents[None],
            image_latents=pack.image_latents[None],
        )
        dit, blocks = open_dit([learning.base], None, device="cpu", dtype=torch.float32)
        alone = build_trained(dit, blocks, Building(SMALL.shape), device="cpu")
        timestep = torch.tensor([600.0])
        together = PackedTransformer(alone, 4)(pack.target_latents[None], timestep, packed)
        third = alone(latents[2:3], timestep, clip_of(conditioning, 2))
        frames = latents.shape[2]
        torch.testing.assert_close(together[:, :, 2 * frames : 3 * frames], third, atol=1e-4, rtol=1e-3)


class TestScores:
    def test_the_truth_is_perfect_and_an_error_has_its_psnr(self):
        codec = LinearCodec(to_video(random_clips(8, 5, 32, 1, "cpu").color), side=2)
        task = new_view_task(2, 5, 32, codec, torch.device("cpu"))
        assert not (task.seen & task.holes).any() and task.holes[:, 1:].any()
        truth = to_video(task.truth)
        perfect = task.score(truth)
        assert perfect.seen > 80 and perfect.holes > 80
        # An error of 0.1 of the range in holes alone has 20 dB there.
        wrong = torch.where(task.holes[:, None], torch.where(truth > 0, truth - 0.2, truth + 0.2), truth)
        score = task.score(wrong)
        assert score.holes == pytest.approx(20, abs=0.01) and score.seen > 80

    def test_the_summary_compares_seed_by_seed(self):
        simulated, rectangles = [Score(25, 19), Score(27, 21)], [Score(24, 18), Score(26, 17)]
        rows = {row.what: row for row in summary(Score(18, 16), {"simulated": simulated, "rectangles": rectangles})}
        assert rows["seen, simulated"].figure == "26.00 +- 1.41 dB"
        assert rows["gain in seen pixels"].figure.startswith("8.00") and "not" not in rows["gain in seen pixels"].remark
        assert rows["gain in holes over rectangles"].figure == "2.50 +- 2.12 dB"


class TestLearning:
    def test_the_bases_loss_falls(self, learned):
        _, losses = learned
        assert sum(losses[-6:]) < 0.9 * sum(losses[:6])

    def test_a_base_that_is_stopped_continues_to_the_same_weights(self, learned, tmp_path, monkeypatch):
        learning, losses = learned
        again = Learning(SMALL, tmp_path, learning.device)
        monkeypatch.setattr("bench.trained_toy.time", SimpleNamespace(monotonic=itertools.count().__next__))
        assert again.train_base(deadline=7) == losses[:7]
        assert not again.base.exists()
        assert again.train_base() == losses
        assert again.base.read_bytes() == learning.base.read_bytes()

    def test_masks_of_a_folder_are_those_that_were_drawn(self, learned):
        learning, _ = learned
        (kept,) = learning.simulated(0)
        (path,) = learning.folder.glob("masks-*")
        path.unlink()
        assert torch.equal(learning.simulated(0)[0], kept)

    @pytest.mark.parametrize("name", TOYS)
    def test_adapters_have_at_most_two_per_cent_of_the_bases_parameters(self, name):
        from diffsynth.models.wan_video_dit import WanModel

        from bench.random_weights import small_dit_sizes

        size = EXPERIMENTS[name]
        with torch.device("meta"):
            dit = WanModel(**small_dit_sizes(size.heads, size.layers, size.ffn))
        base = sum(parameter.numel() for parameter in dit.parameters())
        own = count_parameters(size.shape, width=128 * size.heads, ffn=size.ffn, blocks=size.layers)
        assert sum(own.values()) <= SHARE_TARGET * base

    def test_the_adapter_changes_what_the_engine_generates(self, learned):
        learning, _ = learned
        task, adapter = learning.task(), learning.adapter("simulated", 0)
        assert not torch.equal(learning.generated(task, None), learning.generated(task, adapter))

    def test_it_continues_in_its_folder_and_refuses_another_experiments(self, learned):
        learning, _ = learned
        stopped = list(measure_learning(SMALL, learning.folder, learning.device, seeds=1, minutes=0))
        assert stopped[-1].what == "stopped" and "rectangles, seed 0" in stopped[-1].remark
        rows = list(measure_learning(SMALL, learning.folder, learning.device, seeds=1, processes=2))
        assert "1, trained in 2 processes" in {row.remark for row in rows}
        assert "gain in holes over rectangles" in {row.what for row in rows}
        assert RunFolder(learning.folder / "rectangles-0").steps()[-1] == SMALL.settings.steps
        assert (learning.folder / "views.png").exists()
        with pytest.raises(RequestError, match="another size"):
            Learning(dataclasses.replace(SMALL, evaluated=2), learning.folder, learning.device)
