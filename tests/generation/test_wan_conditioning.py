"""Conditioning of a shot: sizes, erosion, scaling, windows; and decoding latents to pixels."""

import contextlib
from itertools import repeat

import numpy as np
import pytest
import torch

from ex4d.generation.wan.conditioning import (
    WorkingSize,
    erode,
    erosion_sides,
    image_to_video_input,
    known_mask,
    latent_count,
    window_pixels,
)
from ex4d.generation.wan.streaming import BlockStreaming
from ex4d.generation.wan.windows import split_into_windows
from ex4d.raster import RenderedFrame
from ex4d_core.final_sizes import round_up_frames, window_count


def frame(index: int, mask: np.ndarray, color: int = 200) -> RenderedFrame:
    image = np.full((*mask.shape, 3), color, np.uint8) * mask[..., None]
    return RenderedFrame(index, image, mask, np.ones(mask.shape, np.float32))


def frames(count: int) -> list[RenderedFrame]:
    return [frame(index, np.ones((16, 16), bool)) for index in range(count)]


# Sizes.


@pytest.mark.parametrize(
    ("size", "limit", "scaled", "padded"),
    [
        ((512, 512), 512 * 512, (512, 512), (512, 512)),
        ((1920, 1080), 512 * 512, (683, 384), (688, 384)),
        ((1920, 1080), 0, (1920, 1080), (1920, 1088)),
        ((300, 200), 512 * 512, (300, 200), (304, 208)),
        ((1, 9000), 64 * 64, (1, 6072), (16, 6080)),
    ],
)
def test_aspect_is_kept_and_sizes_are_padded_to_multiples_of_16(size, limit, scaled, padded):
    working = WorkingSize.of(*size, limit)
    assert (working.scaled_width, working.scaled_height) == scaled
    assert (working.padded_width, working.padded_height) == padded


def test_downscaling_gives_holes_no_dark_rim():
    mask = np.ones((64, 64), bool)
    mask[:, 20:41] = False
    size = WorkingSize.of(64, 64, 48 * 48)
    pixels = window_pixels([frame(0, mask)], [0], size)
    seen = pixels.mask[0, 0, 0] > 0
    assert 0.5 < seen.float().mean() < 0.8
    values = pixels.color[0, 0, 0][seen]
    assert values.min() > 200 / 127.5 - 1 - 0.02, "every seen pixel keeps the footage's colour"


@pytest.mark.parametrize("limit", [0, 48 * 48])
def test_of_a_soft_edge_the_half_that_was_seen_counts(limit):
    """A pixel of which less than half was seen has a colour, for blending; the weights see it as unseen and black."""
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:, 30], alpha[:, 31], alpha[:, 32:] = 142, 113, 0
    hard = frame(0, alpha >= 128)
    soft = RenderedFrame(
        0, np.where(alpha[..., None] > 0, 200, 0).astype(np.uint8).repeat(3, 2), hard.mask, hard.depth, alpha
    )
    of_soft, of_hard = (window_pixels([one], [0], WorkingSize.of(64, 64, limit)) for one in (soft, hard))
    assert torch.equal(of_soft.color, of_hard.color) and torch.equal(of_soft.mask, of_hard.mask)


# Colour and mask as the published weights saw them.


def test_colour_is_black_where_unseen_and_the_mask_is_scaled_twice():
    mask = np.ones((16, 32), bool)
    mask[:, 16:] = False
    pixels = window_pixels([frame(0, mask, 255)], [0], WorkingSize.of(32, 16, 0))
    assert pixels.color.shape == pixels.mask.shape == (1, 3, 1, 16, 32)
    assert pixels.color[..., :16].eq(1).all() and pixels.color[..., 16:].eq(-1).all()
    assert pixels.mask[..., :16].eq(1).all() and pixels.mask[..., 16:].eq(-3).all()
    assert pixels.visible_fraction == (0.5,)


@pytest.mark.parametrize(("side", "left", "right"), [(2, 0, 1), (3, 1, 1), (8, 3, 4)])
def test_erosion_widens_holes_by_a_square_as_opencv_does(side, left, right):
    """OpenCV anchors a square of even side right of and below its centre."""
    mask = torch.ones(40, 40, dtype=torch.bool)
    mask[20, 20] = False
    unseen = torch.nonzero(~erode(mask, side))
    assert unseen.min(0).values.tolist() == [20 - left, 20 - left]
    assert unseen.max(0).values.tolist() == [20 + right, 20 + right]


def test_the_frames_border_is_not_eroded():
    assert erode(torch.ones(10, 10, dtype=torch.bool), 8).all()


def test_erosion_depends_on_seed_and_frame_only():
    sides = erosion_sides(49, (2, 8), seed=3)
    assert erosion_sides(20, (2, 8), seed=3) == sides[:20]
    assert erosion_sides(49, (2, 8), seed=4) != sides
    assert set(sides) == set(range(2, 9))
    assert erosion_sides(3, (0, 0), seed=3) == [0, 0, 0]


def test_wans_image_to_video_inputs():
    known = torch.ones(1, 3, 5, 16, 16)
    video = image_to_video_input(known, 9)
    assert video[:, :, :5].eq(1).all() and video[:, :, 5:].eq(0).all() and video.shape[2] == 9
    # The first latent stands for one frame, the others for four each: two latents are known.
    flags = known_mask(5, 9, 2, 3)
    assert flags.shape == (1, 4, 3, 2, 3)
    assert flags[:, :, :2].eq(1).all() and flags[:, :, 2].eq(0).all()
    assert known_mask(1, 9, 2, 3)[0, :, :, 0, 0].tolist() == [[1, 0, 0]] * 4


# Windows.


def test_lengths_are_rounded_up_to_4n_plus_1():
    assert [round_up_frames(count) for count in (1, 2, 5, 6, 48, 49, 50)] == [1, 5, 5, 9, 49, 49, 53]
    assert [latent_count(count) for count in (1, 5, 49)] == [1, 2, 13]


@pytest.mark.parametrize("count", [1, 4, 9, 10, 13, 14, 17, 30])
def test_windows_cover_every_frame_once(count):
    result = list(split_into_windows(frames(count), repeat(9), 5))
    assert len(result) == window_count(count, 9, 5)
    new = [entry.index for window in result for entry in window.frames[window.known : window.known + window.new]]
    assert new == list(range(count))
    for window in result:
        assert len(window.frames) % 4 == 1 and len(window.frames) <= 9
        assert window.known == (5 if window.number else 0)
        assert window.frames[0].index == window.start == 4 * window.number


def test_an_empty_shot_has_no_window():
    assert list(split_into_windows([], [9], 5)) == []


# Blocks that are streamed from the host's memory.


@pytest.mark.parametrize(
    ("count", "resident", "copies"),
    [
        (1, 0, [0]),
        (2, 0, [0, 1]),
        (3, 0, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]),
        (5, 2, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]),
        (4, 4, []),
    ],
)
def test_streamed_blocks_compute_the_same_again_and_again(count, resident, copies, monkeypatch):
    """Each is copied once in a round, the first one of the next round while the last one computes."""
    copied = []
    plain = BlockStreaming._fetch
    monkeypatch.setattr(
        BlockStreaming, "_fetch", lambda self, index, number: (copied.append(index), plain(self, index, number))[1]
    )
    torch.manual_seed(0)
    blocks = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.LayerNorm(6)) for _ in range(count)
    )
    blocks.requires_grad_(False)
    value = torch.randn(3, 6)

    def run() -> torch.Tensor:
        result = value
        for block in blocks:
            result = block(result)
        return result

    expected = run()
    streaming = BlockStreaming(blocks, torch.device("cpu"), resident)
    for _ in range(3):
        assert torch.equal(run(), expected)
    assert copied == copies
    streaming.stop()


# Latents back to pixels.


@pytest.fixture(scope="module")
def vae():
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    from ex4d.generation.wan.networks import build_vae

    vae = build_vae(8)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5
        for key, value in vae.model.state_dict().items()
    }
    vae.model.load_state_dict(state, assign=True)
    return vae.requires_grad_(False)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_decoding_in_order_equals_decoding_at_once(vae, count):
    from ex4d.generation.wan.decoding import decode_in_order

    latents = torch.randn(1, 16, count, 4, 6, generator=torch.Generator().manual_seed(1))
    at_once = vae.decode(latents, device="cpu")[0].transpose(0, 1)
    parts = list(decode_in_order(vae, latents, contextlib.nullcontext))
    assert [len(part) for part in parts] == [1, *[4] * (count - 1)]
    torch.testing.assert_close(torch.cat(parts), at_once, rtol=0, atol=1e-5)


@pytest.mark.parametrize("known", [1, 9])
def test_given_frames_become_the_same_latents_whatever_follows(vae, known):
    """So a window's known latents are the first ones of its image-to-video input, which is encoded anyway."""
    from ex4d.generation.wan.decoding import encode_video

    given = torch.rand(1, 3, known, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    alone = encode_video(vae, given, "cpu")
    assert torch.equal(alone, encode_video(vae, image_to_video_input(given, 13), "cpu")[:, :, : latent_count(known)])


def test_the_vae_keeps_no_frames_once_it_is_done(vae):
    """They are gigabytes for large images, and denoising comes between encoding and decoding."""
    from ex4d.generation.wan.decoding import decode_in_order, encode_video

    latents = encode_video(vae, torch.zeros(1, 3, 9, 32, 48), "cpu")
    assert not any(kept is not None for kept in vae.model._enc_feat_map)
    frames = decode_in_order(vae, latents, contextlib.nullcontext)
    next(frames)
    assert any(kept is not None for kept in vae.model._feat_map)
    frames.close()
    assert not any(kept is not None for kept in vae.model._feat_map)


def test_a_consumer_between_two_frames_keeps_its_own_modes(vae):
    """Inference mode and autocast end where frames are yielded, or they would leak into the consumer."""
    from ex4d.generation.wan.decoding import decode_in_order

    latents = torch.zeros(1, 16, 2, 2, 2)
    for _ in decode_in_order(vae, latents, lambda: torch.autocast("cpu", torch.bfloat16)):
        assert not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")


def test_estimates_are_shown_in_colours_fitted_to_the_render():
    from ex4d.generation.wan.decoding import LatentToRgb

    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 3, 8, 8, generator=generator)
    mixture = 0.2 * torch.randn(3, 16, generator=generator)
    colors = torch.einsum("cl,blfhw->bcfhw", mixture, latents).clamp(-1, 1)
    video = colors.repeat_interleave(8, 3).repeat_interleave(8, 4)[:, :, [0, 1, 1, 1, 1, 2, 2, 2, 2]]
    image = LatentToRgb(latents, video).image(latents, 1)
    expected = (colors[0, :, 1].permute(1, 2, 0) + 1) * 127.5
    assert image.shape == (8, 8, 3)
    assert np.abs(image - expected.numpy()).mean() < 12
