"""Finds the tiny decoder TAEW 2.1: under its published name, or where ComfyUI keeps such decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ex4d.weights.catalogue import TINY_DECODER, part
from ex4d.weights.places import path_of
from ex4d.weights.search import standard_folders

_NAMES = ("taew2_1.safetensors", "taew2_1.pth")
_FOLDER = "vae_approx"


def find_tiny_decoder(models: Path, further: Sequence[Path] = ()) -> Path | None:
    """The decoder's file; None where there is none.

    Args:
        models: folder of weights.
        further: folders that are also looked into.
    """
    # ComfyUI's own folder of such files lies beside those of its other weights.
    beside = (folder.parent / _FOLDER for folder in standard_folders())
    places = [models, models / _FOLDER, *further, *(folder / _FOLDER for folder in further), *beside]
    named = [path_of(models, part(TINY_DECODER).files[0]), *(place / name for place in places for name in _NAMES)]
    return next((path for path in named if path.is_file()), None)
