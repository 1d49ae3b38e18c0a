"""What the engine wan starts from with conditioning "known": frame 0, the window before, and its colours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generation import EngineState
from ex4d.generation.wan import denoising, wan_engine
from ex4d.generation.wan.color_hold import ColorHold, ColorMap, ColorMoments, transport
from ex4d.generation.wan.conditioning import WorkingSize, close_small_holes, window_pixels
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, shot

# Frame 0.


def test_small_holes_are_closed_with_the_colours_around_and_large_ones_stay():
    mask = torch.ones(1, 1, 40, 60)
    mask[..., 10:14, 20:24] = 0  # four pixels across
    mask[..., :, 30] = 0  # a tear of one pixel
    mask[..., 20:30, 40:50] = 0
    color = torch.linspace(0, 1, 60).expand(1, 3, 40, 60) * mask
    filled, closed = close_small_holes(color, mask)
    assert (closed - mask)[..., 10:14, 20:24].eq(1).all() and closed[..., 30].eq(1).all()
    assert closed[..., 21:29, 41:49].eq(0).all(), "what is large stays unseen"
    assert torch.equal(filled[mask.expand_as(filled) > 0], color[mask.expand_as(color) > 0])
    assert (filled[0, 0, :, 30] - 30 / 59).abs().max() < 0.02


def test_only_the_first_frame_of_a_shot_stays_whole():
    mask = np.ones((32, 48), bool)
    mask[16, 24] = mask[:, :8] = False
    frames = [
        RenderedFrame(0, np.full((32, 48, 3), 200, np.uint8) * mask[..., None], mask, mask.astype(np.float32))
    ] * 2
    size = WorkingSize.of(48, 32, 0)
    whole = window_pixels(frames, [4, 4], size, whole_first=True).mask[0, 0] > 0
    eroded = window_pixels(frames, [4, 4], size).mask[0, 0] > 0
    assert whole[0, 16, 24] and whole[0, :, 8:].all() and not whole[0, :, :8].any()
    assert not eroded[0, 16, 24] and torch.equal(whole[1], eroded[1]) and torch.equal(whole[1], eroded[0])


# Colours.


def picture(seed: int, count: int = 5, side: int = 64) -> torch.Tensor:
    """(1, 3, T, H, W) blocks of colours in [-0.6, 0.6]."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(1, 3, count, side // 8, side // 8, generator=generator) * 1.2 - 0.6
    return blocks.repeat_interleave(8, 3).repeat_interleave(8, 4)


def frames_of(video: torch.Tensor) -> torch.Tensor:
    """(1, 3, T, H, W) to (T, 3, H, W)."""
    return video[0].transpose(0, 1)


def away(frames: torch.Tensor, video: torch.Tensor) -> float:
    return (frames - frames_of(video)).abs().mean().item()


def drift(frames: torch.Tensor, amount: float) -> torch.Tensor:
    """Colours that lose contrast, and turn red."""
    return frames * (1 - amount) + amount * torch.tensor([0.5, 0.0, -0.2])[:, None, None, None]


def test_transport_gives_the_mean_and_covariance_that_are_asked_for():
    generator = torch.Generator().manual_seed(0)
    some, other = (
        torch.randn(4000, 3, generator=generator) @ (torch.eye(3) + 0.3 * torch.randn(3, 3, generator=generator))
        for _ in range(2)
    )
    one, two = (ColorMoments.of(colors) for colors in (some, other + 0.2))
    found = transport(one.mean, one.covariance, two.mean, two.covariance)
    moved = ColorMoments.of(some.double() @ found.matrix.T + found.offset)
    assert torch.allclose(moved.mean, two.mean, atol=1e-6)
    assert (moved.covariance - two.covariance).abs().max() < 0.02
    same = transport(one.mean, one.covariance, one.mean, one.covariance)
    assert torch.allclose(same.matrix, torch.eye(3, dtype=torch.float64), atol=1e-9)


def hold_all(hold: ColorHold, frames: torch.Tensor) -> torch.Tensor:
    """By latents: one frame, and then four each."""
    parts = [slice(max(0, end - 4), end) for end in range(1, frames.shape[2] + 1, 4)]
    return torch.cat([hold.hold(part.start, frames_of(frames)[part]) for part in parts])


def test_a_later_window_keeps_the_colours_of_the_first_one():
    """The first window makes the footage a little darker: that stays; what later ones add to it goes."""
    footage, seen = picture(0), torch.ones(1, 3, 5, 64, 64)
    first = ColorHold(footage, seen, None, first=True)
    made = 0.9 * footage - 0.05
    assert torch.equal(hold_all(first, made), frames_of(made)) and not first.changes
    other = picture(1)
    later = ColorHold(other, seen, first.reference, first=False)
    wanted = 0.9 * other - 0.05
    drifted = drift(wanted, 0.15)
    held = hold_all(later, drifted)
    assert later.changes and away(held, wanted) < away(frames_of(drifted), wanted) / 8


def test_colours_follow_what_is_seen_and_unseen_regions_go_along():
    footage, seen = picture(2), torch.ones(1, 3, 5, 64, 64)
    seen[..., 40:] = -3
    same = ColorMap(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    made = drift(footage, 0.2)
    made[..., 40:] = 0.9  # invented, as unlike the footage as it likes
    held = hold_all(ColorHold(footage, seen, same, first=False), made)
    rest = (held - frames_of(footage))[..., :40]
    assert rest.abs().mean() < 0.02 and (held[..., 40:] - frames_of(made)[..., 40:]).abs().mean() > 0.05


def test_changes_of_colour_are_smooth_in_time_and_nothing_seen_changes_nothing():
    footage, seen = picture(3, 17), torch.ones(1, 3, 17, 64, 64)
    same = ColorMap(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    made = torch.cat([footage[:, :, :9], drift(footage[:, :, 9:], 0.3)], dim=2)
    held = hold_all(ColorHold(footage, seen, same, first=False), made)
    offsets = [(held - frames_of(made)).mean(dim=(2, 3))[index, 0].item() for index in range(17)]
    assert max(np.abs(np.diff(offsets))) < 0.05, "0.15 in one frame without smoothing"
    blind = ColorHold(footage, torch.full_like(seen, -3), same, first=False)
    assert torch.equal(hold_all(blind, made), frames_of(made)) and not blind.changes


def test_a_window_starts_with_the_colours_of_the_frames_before_it():
    """They are shown as they are, and its own frames continue them: the hold begins after them, not at the join."""
    footage, seen = picture(4), torch.ones(1, 3, 5, 64, 64)
    made = drift(footage, 0.3)
    held = ColorHold(footage, seen, ColorMap.identity(), first=False).hold(1, frames_of(made)[1:])
    left = (held - frames_of(footage)[1:]).abs().mean(dim=(1, 2, 3)).tolist()
    drifted = away(frames_of(made), footage)
    assert left[0] > drifted / 2 and left == sorted(left, reverse=True) and left[-1] < drifted / 8


# The engine.

KNOWN = {**FEW, "steps": 1, "guidance": 1.0, "window": 9, "overlap": 5}


@pytest.fixture
def generate(toy_models, monkeypatch):
    """Generates with the preset standard; ``run.windows`` has what each window was conditioned on, and its latents."""

    def record(transformer, noise, conditioning, *more, **named):
        latents = denoising.denoise(transformer, noise, conditioning, *more, **named)
        run.windows.append((conditioning, latents, noise))
        return latents

    def run(frames, done=0, state=None, **changes):
        run.windows = []
        engine = create_wan_engine(wan_preset("standard", **{**KNOWN, **changes}), "cpu", MachineSettings(toy_models))
        return list(engine.generate(frames, count=len(frames), done=done, state=state))

    monkeypatch.setattr(wan_engine, "denoise", record)
    return run


def test_further_windows_start_from_the_latents_of_the_one_before(generate):
    """Three windows of 9 frames that share 5: latents 1 and 2 of the next are the last two of the one before."""
    video = generate(shot(17))
    assert len(video) == 17 and len(generate.windows) == 3
    (_, first, _), (second, latents, _), (third, _, _) = generate.windows
    assert second.known_latents.shape[2] == 2
    assert torch.equal(second.known_latents[:, :, 1], first[:, :, -1])
    assert torch.equal(latents[:, :, :2], second.known_latents), "and they stay as they are"
    assert torch.equal(second.image_latents[:, 4:, :2], second.known_latents)
    # Held colours move them by as much as encodings differ.
    assert not torch.equal(third.known_latents[:, :, 1], latents[:, :, -1])
    assert (third.known_latents[:, :, 1] - latents[:, :, -1]).abs().mean() < latents[:, :, -1].abs().mean()


def test_frames_that_were_made_are_seen_by_the_camera_encoder(generate):
    """Its mask has no holes where the window before has made the frames, and its colours are theirs."""
    frames = shot(13)
    generate(frames)
    (first, _, _), (second, _, _) = generate.windows
    everything = [dataclasses.replace(frame, mask=np.ones_like(frame.mask)) for frame in frames]
    generate(everything, erosion=(0, 0))
    full = generate.windows[1][0].control_latents[:, 16:]
    mask = second.control_latents[:, 16:]
    assert torch.equal(mask[:, :, :2], full[:, :, :2]) and not torch.equal(mask[:, :, 2:], full[:, :, 2:])
    assert not torch.equal(first.control_latents[:, 16:], full)


def test_takes_by_seed_share_masks_and_encodings(generate):
    generate(shot(9), seed=1)
    one, noise = generate.windows[0][0], generate.windows[0][2]
    generate(shot(9), seed=2)
    two, other = generate.windows[0][0], generate.windows[0][2]
    for name in ("control_latents", "image_latents", "image_embeds"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert not torch.equal(noise, other)
    generate(shot(9), seed=1, erosion_seed=5)
    assert not torch.equal(one.control_latents, generate.windows[0][0].control_latents)


def test_an_interrupted_shot_continues_to_the_same_frames(generate, tmp_path):
    whole = generate(shot(17))
    state = EngineState(tmp_path / "engine.pt")
    engine_frames = generate(shot(13)[:13], state=state)  # two windows of 9, as of the 17
    assert len(engine_frames) == 13
    rest = generate(shot(17), done=13, state=state)
    assert len(generate.windows) == 1 and np.array_equal(whole[13:], rest)


def test_anamorphic_frames_are_generated_with_square_pixels(generate):
    frames = [dataclasses.replace(frame, pixel_aspect=2.0) for frame in shot(5)]
    video = generate(frames)
    assert video[0].shape == frames[0].color.shape
    assert generate.windows[0][1].shape[-2:] == (4, 10), "68x23, padded to 80x32"
    generate(frames, conditioning="original")
    assert generate.windows[0][1].shape[-2:] == (4, 6)
