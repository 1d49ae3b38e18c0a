"""A contact sheet of simulated masks on a clip, to look at before a data set is built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.media import contact_sheet
from ex4d.pipeline.footage_depth import estimator_of
from ex4d.raster import create_rasterizer
from ex4d.training.clip_list import Clip
from ex4d.training.clip_reader import ClipReader
from ex4d.training.clip_scan import scan_clip
from ex4d.training.dataset_settings import DatasetSettings
from ex4d.training.errors import TrainingDataError
from ex4d.training.rendered_masks import SimulatedMask
from ex4d.training.simulated_masks import UNUSABLE_MASK_ERRORS, simulate_mask


def mask_sheet(
    clips: Sequence[Clip],
    settings: DatasetSettings,
    masks: int,
    *,
    device: str = "auto",
    machine: MachineSettings | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[np.ndarray, list[str]]:
    """Some masks of both kinds over the first window of the first clip that has one.

    Args:
        clips: as `list_clips` gives them.
        masks: of each kind.
        note: called with the problems of clips that cannot be read.

    Returns:
        The image (H, W, 3) uint8: the footage, then ``masks`` rows of rendering masks and as many of tracking masks;
        and what each row shows, for people.

    Raises:
        TrainingDataError: no clip has a window.
    """
    for clip in clips:
        scan = scan_clip(Path(clip.footage), settings)
        if scan.problem:
            note(scan.problem)
        if scan.starts:
            break
    else:
        raise TrainingDataError(f"no clip has {settings.frames} frames without a cut in which something moves")
    machine = machine or MachineSettings.from_environment()
    reader = ClipReader(clip, settings.size, lambda: estimator_of(settings.depth, device, machine))
    read = reader.read(scan.starts[0], settings.frames)
    rasterizer = create_rasterizer("warp", device, machine=machine)
    surface = read.surface.to(rasterizer.device)
    rows = [(f"{Path(clip.footage).name} from frame {scan.starts[0]}", list(read.frames))]
    for tracked in (0.0, 1.0):
        for number in range(masks):
            seed = int.from_bytes(hashlib.sha256(f"{settings.seed} {number}".encode()).digest()[:7], "big")
            parts = settings.moves, settings.regions, tracked, seed, rasterizer
            try:
                mask = simulate_mask(surface, *parts, camera_known=read.camera_known)
            except UNUSABLE_MASK_ERRORS as error:
                note(f"the mask drawn for row {len(rows)} cannot be used: {error}")
                continue
            if mask is None:
                note(f"none of the masks drawn for row {len(rows)} has an unseen share within the limits")
                continue
            rows.append((_described(mask), list(read.frames * mask.seen.cpu().numpy()[..., None])))
    return contact_sheet(rows), [label for label, _ in rows]


def _described(mask: SimulatedMask) -> str:
    return f"{mask.kind}: {mask.words}; {mask.unseen:.0%} unseen"
