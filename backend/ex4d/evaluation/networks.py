"""The networks that metrics compare features of, loaded from fetched weights when they are first asked for.

Their code is that of kept libraries: lpips, torch-fidelity, cd-fvd and transformers (the extra ``evaluate``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ex4d.installation import install_command
from ex4d.weights.catalogue import CLIP, I3D, INCEPTION, LPIPS_BACKBONE, part
from ex4d.weights.errors import WeightsMissingError
from ex4d.weights.places import missing_files, path_of
from ex4d.weights.pretrained import damage_named, load_pretrained

# Of each part of the catalogue, the package with the network's code.
PACKAGES = {LPIPS_BACKBONE: "lpips", INCEPTION: "torch_fidelity", I3D: "cdfvd", CLIP: "transformers"}
PairDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Lpips:
    """LPIPS of pairs of pictures, (N, 3, H, W) in 0 to 1 each.

    The package enlarges layers for a map and not for the distance: a map's mean is near it, not equal.

    Attributes:
        whole: (N, 1, 1, 1), the published distance.
        spatial: (N, 1, H, W), a map of it, for parts of pictures.
    """

    whole: PairDistance
    spatial: PairDistance


Features = Callable[[np.ndarray], np.ndarray]


class Networks:
    """Each is loaded once, and stays."""

    def __init__(self, models: Path, device: torch.device) -> None:
        """Take weights from a folder of models; nothing is read yet."""
        self._models, self._device = models, device
        self.lpips = cache(self._lpips)
        self.inception = cache(self._inception)
        self.i3d = cache(self._i3d)
        self.clip = cache(self._clip)

    def why_missing(self, name: str) -> str:
        """What keeps a part of the catalogue from being used, with the command that adds it; "" for nothing."""
        package = PACKAGES[name]
        if find_spec(package) is None:
            return f"needs the package {package}: run {install_command('evaluate')}"
        if missing_files(self._models, part(name)):
            return f"its weights are not here: run ex4d models fetch {name}"
        return ""

    def _require(self, name: str) -> Path:
        """The part's first file.

        Raises:
            WeightsMissingError: the part or its package is missing.
        """
        missing = self.why_missing(name)
        if missing:
            raise WeightsMissingError(f"{part(name).title}: {missing}")
        return path_of(self._models, part(name).files[0])

    def _lpips(self) -> Lpips:
        path = self._require(LPIPS_BACKBONE)
        import lpips

        # Its linear layers come with the package; the backbone would be downloaded by torchvision.
        with damage_named(path):
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
            stored = torch.load(path, map_location="cpu", weights_only=True)
            layers = {key.removeprefix("features."): value for key, value in stored.items() if "features" in key}
            _load_alexnet(network.net, layers)
        network = network.eval().requires_grad_(False).to(self._device)
        spatial = copy.copy(network)  # with the same weights
        spatial.spatial = True
        return Lpips(partial(network, normalize=True), partial(spatial, normalize=True))

    def _inception(self) -> Features:
        """(N, 2048) features of (N, H, W, 3) uint8 pictures."""
        path = self._require(INCEPTION)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        with damage_named(path):
            torch.load(path, map_location="cpu", weights_only=True)  # the package itself would run pickled code
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            )
        network = network.eval().requires_grad_(False).to(self._device)

        def features(images: np.ndarray) -> np.ndarray:
            batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._device)
            return network(batch)[0].float().cpu().numpy()

        return features

    def _i3d(self) -> Features:
        """(1, 400) logits of a video (T, H, W, 3) uint8."""
        path = self._require(I3D)
        from cdfvd.third_party.i3d.utils import load_i3d_model, preprocess_i3d

        with damage_named(path):
            network = load_i3d_model(self._device, str(path)).requires_grad_(False)

        def features(video: np.ndarray) -> np.ndarray:
            return network(preprocess_i3d(video[None]).to(self._device)).float().cpu().numpy()

        return features

    def _clip(self) -> Features:
        """(N, 512) features of length 1 of (N, H, W, 3) uint8 pictures: the middle square, as CLIP takes it."""
        folder = self._require(CLIP).parent
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        network: Any = load_pretrained(CLIPVisionModelWithProjection, folder, torch.float32).to(self._device)
        prepare = CLIPImageProcessor()  # CLIP's own: bicubic, its mean and deviation

        def features(images: np.ndarray) -> np.ndarray:
            batch: Any = prepare(images=list(images), return_tensors="pt")
            found = network(batch["pixel_values"].to(self._device)).image_embeds
            return (found / found.norm(dim=-1, keepdim=True)).cpu().numpy()

        return features


def _load_alexnet(network: Any, layers: dict[str, torch.Tensor]) -> None:
    """Put torchvision's layers into lpips's slices of them, which keep their numbers."""
    own = network.state_dict()
    network.load_state_dict({key: layers[key.partition(".")[2]] for key in own})
