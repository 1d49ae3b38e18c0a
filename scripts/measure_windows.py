"""Measures how a final of eight windows holds together: drift of its colours, and the seams between windows.

Small networks make the sample clip's shot, with conditioning "original" and "known": once with random weights, and once
with a toy that is like a trained model where it matters here. Its VAE is fitted to the clip, and its generator gives
the render, in the look of the frames that it starts from. Prints the table of docs/measured/windows.md.

    python scripts/measure_windows.py [--fit-steps N] [--windows N] [--window N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from bench.random_weights import write_models  # noqa: E402
from ex4d.generation.wan import wan_engine  # noqa: E402
from ex4d.generation.wan.networks import build_vae  # noqa: E402
from ex4d.generation.wan.wan_engine import create_wan_engine  # noqa: E402
from ex4d.machine import MachineSettings  # noqa: E402
from ex4d.media import read_frames  # noqa: E402
from ex4d.raster import RenderedFrame  # noqa: E402
from ex4d.weights.wan_files import find_wan_files  # noqa: E402
from ex4d_core.final_sizes import window_lengths  # noqa: E402
from ex4d_core.wan_settings import WanSettings  # noqa: E402

CLIP = SCRIPTS.parent / "tests" / "data" / "sample" / "footage.mp4"
WIDTH, HEIGHT = 48, 32
WINDOW, OVERLAP = 9, 5
# Of the look that the toy starts from, what it keeps.
_KEPT_LOOK = 0.9


@dataclass(frozen=True)
class Held:
    """How a shot held together.

    Attributes:
        drift: for each window after the first, how far its colours are from what the first one made of the footage:
            distance of the mean RGB of its seen pixels, of 255.
        seams: for each join, the mean change from one frame to the next, by the median of the three before and after.
    """

    drift: tuple[float, ...]
    seams: tuple[float, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit-steps", type=int, default=500, help="steps of fitting the toy's VAE")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--window", type=int, default=WINDOW, help="frames of each, 4n + 1")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # such small networks do not gain from more
    frames = shot(options.window + (options.windows - 1) * (options.window - OVERLAP))
    print("| networks | conditioning | drift in window 2 | in the last | worst | seam, mean | worst |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="ex4d-windows-") as folder:
        models = write_models(Path(folder) / "models")
        for name in ("random weights", "toy"):
            if name == "toy":
                fit_vae(find_wan_files(models).vae, frames, options.fit_steps)
            for conditioning in ("original", "known"):
                with a_look_that_is_kept() if name == "toy" else nullcontext():
                    held = measure(models, frames, conditioning, options.window)
                figures = (held.drift[0], held.drift[-1], max(held.drift), np.mean(held.seams), max(held.seams))
                cells = " | ".join(f"{figure:.2f}" for figure in figures)
                print(f"| {name} | {conditioning} | {cells} |", flush=True)


def shot(count: int) -> list[RenderedFrame]:
    """The sample clip, forth and back, with a strip at the left that it never saw and that grows and shrinks."""
    clip = [frame for frame in read_frames(CLIP, 0, 49)]
    frames = []
    for index in range(count):
        place = index % (2 * len(clip) - 2)
        image = torch.from_numpy(clip[min(place, 2 * len(clip) - 2 - place)]).permute(2, 0, 1)[None].float()
        small = functional.interpolate(image, (HEIGHT, WIDTH), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        mask = np.ones((HEIGHT, WIDTH), bool)
        mask[:, : round(WIDTH / 3 * abs(np.sin(index / 12)))] = False
        color = small.round().to(torch.uint8).numpy() * mask[..., None]
        frames.append(RenderedFrame(index, color, mask, np.ones(mask.shape, np.float32)))
    return frames


def measure(models: Path, frames: list[RenderedFrame], conditioning: str, window: int = WINDOW) -> Held:
    """Generate a shot in windows of so many frames, and score it."""
    settings = WanSettings(
        conditioning=conditioning,
        window=window,
        overlap=OVERLAP,
        steps=1,
        guidance=1.0,
        precision="float32",
        max_pixels=0,
    )
    engine = create_wan_engine(settings, "cpu", MachineSettings(models))
    video = np.array(list(engine.generate(frames, count=len(frames))), np.float64)
    return score(frames, video, window_lengths(len(frames), settings))


def score(frames: Sequence[RenderedFrame], video: np.ndarray, lengths: Sequence[int]) -> Held:
    """Compare what the windows made of the footage, and the changes at their joins with those around."""
    joins = [sum(lengths[:number]) - number * OVERLAP + OVERLAP for number in range(1, len(lengths))]
    made = np.array([image[frame.mask].mean(axis=0) for frame, image in zip(frames, video, strict=True)])
    given = np.array([frame.color[frame.mask].mean(axis=0) for frame in frames])
    first = slice(0, lengths[0])
    shift = (made[first] - given[first]).mean(axis=0)
    off = made - given - shift
    bounds = [*joins, len(frames)]
    drift = tuple(float(np.abs(off[start:stop].mean(axis=0)).mean()) for start, stop in pairwise(bounds))
    changes = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2, 3))
    seams = []
    for join in joins:
        around = np.r_[changes[join - 4 : join - 1], changes[join : join + 3]]
        seams.append(float(changes[join - 1] / np.median(around)))
    return Held(drift, tuple(seams))


@contextmanager
def a_look_that_is_kept() -> Iterator[None]:
    """While it lasts, the engine's generator is the toy's."""
    with patch.object(wan_engine, "denoise", _render_in_the_look_of_the_start):
        yield


def fit_vae(path: Path, frames: Sequence[RenderedFrame], steps: int) -> None:
    """Train the small VAE in a file to give back clips of five frames; the same steps give the same VAE."""
    vae, generator = build_vae(8), torch.Generator().manual_seed(0)
    model = vae.model
    model.load_state_dict(
        {key: value.float() for key, value in torch.load(path, weights_only=True).items()}, assign=True
    )
    video = torch.from_numpy(np.array([frame.color for frame in frames])).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    parameters = [parameter.requires_grad_(True) for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(parameters)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    losses = []
    for _ in range(steps):
        start = int(torch.randint(0, len(frames) - 5, (1,), generator=generator))
        clip = video[:, :, start : start + 5]
        decoded = model.decode(model.encode(clip, vae.scale), vae.scale)
        loss = functional.l1_loss(decoded, clip)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    torch.save({key: value.detach() for key, value in model.state_dict().items()}, path)
    print(f"(the toy's VAE gives the clip back to {255 / 2 * np.mean(losses[-10:]):.1f} of 255)", file=sys.stderr)


def _render_in_the_look_of_the_start(
    transformer: Any,
    noise: torch.Tensor,
    conditioning: Any,
    settings: WanSettings,
    *,
    on_step: Callable[..., None],
    **_: Any,
) -> torch.Tensor:
    """The render's own latents, moved by as much as the known frames differ from their render, on average."""
    latents = conditioning.control_latents[:, :16].clone()
    if (known := conditioning.known_latents) is not None:
        count = known.shape[2]
        look = (known - latents[:, :, :count]).mean(dim=(2, 3, 4), keepdim=True)
        latents += _KEPT_LOOK * look
        latents[:, :, :count] = known
    on_step(settings.steps, latents, 0.0)
    return latents


if __name__ == "__main__":
    main()
