"""Figures of single results: as the libraries give them on the same arrays, and worse for worse pictures."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ex4d.evaluation.clips import EvaluationClip, Frames, Task, fitted
from ex4d.evaluation.feature_measures import (
    frechet_distance,
    i3d_features,
    inception_features,
    measure_clip,
    video_distance,
)
from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs
from ex4d.evaluation.networks import Networks
from ex4d.evaluation.pixel_measures import measure_pixels
from ex4d.evaluation.seen_measures import measure_seen

SIZE, COUNT = 64, 12
PIXELS = frozenset(("psnr", "ssim", "temporal_error", "lpips"))


class Held(Frames):
    """Frames in memory, without a codec's losses."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.count = frames, len(frames)
        self.height, self.width = frames.shape[1:3]
        self.notes = ()

    def __iter__(self):
        return iter(self.frames)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """(T, H, W, 3) uint8: smooth texture that drifts."""
    noise = torch.rand(1, 3, SIZE // 4, SIZE // 2, generator=torch.Generator().manual_seed(1))
    wide = F.interpolate(noise, (SIZE, 2 * SIZE), mode="bicubic", align_corners=False).clamp(0, 1)
    wide = (255 * wide[0].permute(1, 2, 0)).round().byte().numpy()
    return np.stack([wide[:, 2 * shift : 2 * shift + SIZE] for shift in range(COUNT)])


@pytest.fixture
def inputs(film, random_networks, tmp_path):
    """Of a result, the film being the truth and the footage's own pixels."""
    seen = np.ones(film.shape[:3], bool)
    seen[:, :, : SIZE // 4] = False
    clip = EvaluationClip("clip", tmp_path / "none.mp4")

    def build(frames: np.ndarray, **changes) -> ResultInputs:
        known = Held(film)
        made = ResultInputs(
            *(Task("clip", clip, None), Held(frames), known, known, seen, film, torch.device("cpu"), random_networks)
        )
        return replace(made, **changes)

    return build


def test_pixel_figures_are_the_libraries_on_the_same_arrays(film, inputs, random_networks):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    made = np.clip(film.astype(int) + np.random.default_rng(0).integers(-20, 21, film.shape), 0, 255).astype(np.uint8)
    found = measure_pixels(inputs(made), PIXELS)
    pairs = list(zip(film, made, strict=True))
    exact = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    assert found["psnr"] == pytest.approx(np.mean([peak_signal_noise_ratio(*pair) for pair in pairs]), abs=1e-4)
    assert found["ssim"] == pytest.approx(np.mean([structural_similarity(*pair, **exact) for pair in pairs]), abs=1e-4)
    seen = [(true[:, SIZE // 4 :], one[:, SIZE // 4 :]) for true, one in pairs]
    assert found["psnr/seen"] == pytest.approx(np.mean([peak_signal_noise_ratio(*pair) for pair in seen]), abs=1e-4)
    change = np.diff(made.astype(float), axis=0) - np.diff(film.astype(float), axis=0)
    assert found["temporal_error"] == pytest.approx(np.abs(change).mean(), rel=1e-4)
    lpips = random_networks.lpips()
    first, second = (torch.from_numpy(one[0]).permute(2, 0, 1)[None].float() / 255 for one in (made, film))
    seen = float(lpips.spatial(first, second)[0, 0][:, SIZE // 4 :].mean())
    alone = measure_pixels(inputs(made[:1]), frozenset(("lpips",)))
    assert [alone["lpips"], alone["lpips/seen"]] == pytest.approx([float(lpips.whole(first, second)), seen], rel=1e-5)


def test_figures_of_parts_of_a_picture_are_those_of_other_implementations(film, inputs):
    from scipy.ndimage import binary_erosion
    from skimage.metrics import structural_similarity

    made = np.clip(film.astype(int) + np.random.default_rng(0).integers(-20, 21, film.shape), 0, 255).astype(np.uint8)
    found = measure_pixels(inputs(made), frozenset(("psnr", "ssim")))
    found |= measure_seen(inputs(made), frozenset(("seen_psnr", "flicker")))
    seen = np.ones((SIZE, SIZE), bool)
    seen[:, : SIZE // 4] = False
    exact = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2, "full": True}
    inner = np.s_[5:-5, 5:-5]
    maps = [structural_similarity(*pair, **exact)[1].mean(axis=2)[inner] for pair in zip(film, made, strict=True)]
    squares = (film.astype(float) - made) ** 2

    def decibels(mask: np.ndarray) -> float:
        return float(np.mean([10 * np.log10(255**2 / one[mask].mean()) for one in squares]))

    expected = {
        "ssim/seen": np.mean([one[seen[inner]].mean() for one in maps]),
        "ssim/unseen": np.mean([one[~seen[inner]].mean() for one in maps]),
        "psnr/unseen": decibels(~seen),
        "seen_psnr": decibels(binary_erosion(seen, np.ones((5, 5)), border_value=1)),
        "flicker": np.abs(np.diff(made.astype(float), n=2, axis=0)[:, ~seen]).mean() / 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_lpips_is_the_packages_with_the_backbone_of_the_file(film, random_models, random_networks):
    import lpips
    from torchvision.models import alexnet

    from ex4d.weights.catalogue import LPIPS_BACKBONE, part
    from ex4d.weights.places import path_of

    network = alexnet(weights=None)
    network.load_state_dict(torch.load(path_of(random_models, part(LPIPS_BACKBONE).files[0]), weights_only=True))
    own = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    # torchvision's layers are numbered through; the package keeps the numbers within its five slices.
    for name, layer in own.net.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.load_state_dict(network.features[int(name.rpartition(".")[2])].state_dict())
    made, true = (torch.from_numpy(film[at]).permute(2, 0, 1)[None].float() / 255 for at in (0, 5))
    expected = float(own(made, true, normalize=True))
    assert expected > 0
    found = random_networks.lpips()
    assert float(found.whole(made, true)) == pytest.approx(expected, abs=1e-6)
    own.spatial = True
    assert torch.allclose(found.spatial(made, true), own(made, true, normalize=True), atol=1e-6)
    assert found.spatial(made, true).shape == (1, 1, SIZE, SIZE)


def worsened(film: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Of each fault, films with more and more of it."""
    tensor = torch.from_numpy(film).permute(0, 3, 1, 2).float()

    def blurred(side: int) -> np.ndarray:
        around = F.pad(tensor, (side // 2,) * 4, mode="replicate")
        return F.avg_pool2d(around, side, stride=1).round().byte().permute(0, 2, 3, 1).numpy()

    def noisy(strength: int) -> np.ndarray:
        added = np.random.default_rng(0).normal(0, strength, film.shape)
        return np.clip(film + added, 0, 255).astype(np.uint8)

    def tinted(amount: int) -> np.ndarray:
        return np.clip(film.astype(int) + np.array([amount, 0, -amount]), 0, 255).astype(np.uint8)

    shuffled = film[np.random.default_rng(0).permutation(len(film))]
    return {
        "blur": [blurred(side) for side in (3, 5, 9)],
        "noise": [noisy(strength) for strength in (4, 12, 36)],
        "tint": [tinted(amount) for amount in (5, 15, 45)],
        "frozen": [np.repeat(film[:1], len(film), axis=0)],
        "shuffled": [shuffled],
    }


@pytest.mark.parametrize("fault", ["blur", "noise", "tint", "frozen", "shuffled"])
def test_worse_films_have_worse_figures(fault, film, inputs):
    wanted = frozenset(("psnr", "ssim", "lpips", "temporal_error"))
    best = measure_pixels(inputs(film), wanted)
    steps = [best] + [measure_pixels(inputs(one), wanted) for one in worsened(film)[fault]]
    for name in ("psnr", "psnr/seen", "ssim"):
        values = [step[name] for step in steps]
        if (fault, name) != ("tint", "ssim"):  # which looks at structure, and hardly sees a tint
            assert values == sorted(values, reverse=True) and values[0] > values[-1], (name, values)
    for name in ("lpips", "temporal_error"):
        values = [step[name] for step in steps]
        if (fault, name) != ("tint", "temporal_error"):  # a steady tint changes nothing in time but where it clips
            assert values == sorted(values) and values[0] < values[-1], (name, values)


def test_seen_pixels_are_compared_with_the_footage_and_others_flicker(film, inputs):
    wanted = frozenset(("seen_psnr", "flicker"))
    whole = measure_seen(inputs(film), wanted)
    flickering = film.copy()
    flickering[::2, :, : SIZE // 4] //= 2
    assert measure_seen(inputs(flickering), wanted)["seen_psnr"] == whole["seen_psnr"]
    assert measure_seen(inputs(flickering), wanted)["flicker"] > 2 * whole["flicker"]
    faded = film.copy()
    faded[:, :, SIZE // 2 :] //= 2
    assert measure_seen(inputs(faded), wanted)["seen_psnr"] < whole["seen_psnr"] - 20
    assert measure_seen(inputs(faded), wanted)["flicker"] == whole["flicker"]
    # A data set's own masks may say that other frames saw what this one's pixels do not show.
    wider = inputs(faded, seen=np.ones(film.shape[:3], bool), rendered=inputs(film).seen)
    found = measure_seen(wider, frozenset(("seen_psnr",)))
    assert found["seen_psnr"] == measure_seen(inputs(faded), wanted)["seen_psnr"]
    with pytest.raises(NotMeasuredError, match="saw nothing"):
        measure_seen(inputs(film, seen=np.zeros(film.shape[:3], bool)), frozenset(("seen_psnr",)))
    with pytest.raises(NotMeasuredError, match="saw nearly all"):
        measure_seen(inputs(film, seen=np.ones(film.shape[:3], bool)), frozenset(("flicker",)))


def test_clip_features_are_those_of_transformers_with_clips_own_preparation(film, random_models, random_networks):
    from PIL import Image
    from transformers import CLIPVisionModelWithProjection

    from ex4d.weights.catalogue import CLIP, part
    from ex4d.weights.places import path_of

    network = CLIPVisionModelWithProjection.from_pretrained(path_of(random_models, part(CLIP).files[0]).parent).eval()
    wide = np.pad(film[:2], ((0, 0), (0, 0), (10, 30), (0, 0)), mode="reflect")
    side = 224
    squares = []
    for image in wide:
        width = int(side * image.shape[1] / image.shape[0])
        enlarged = np.asarray(Image.fromarray(image).resize((width, side), Image.Resampling.BICUBIC))
        left = (width - side) // 2
        squares.append(enlarged[:, left : left + side])
    mean, deviation = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    batch = torch.from_numpy((np.stack(squares) / 255 - mean) / deviation).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        embeds = network(batch).image_embeds
        found = random_networks.clip()(wide)
    np.testing.assert_allclose(found, (embeds / embeds.norm(dim=-1, keepdim=True)).numpy(), atol=1e-4)


def test_clip_similarities_are_cosines_of_its_own_features(film, inputs, random_networks):
    wanted = frozenset(("clip_source", "clip_frames"))
    assert measure_clip(inputs(film), wanted)["clip_source"] == pytest.approx(1, abs=1e-5)
    frozen = np.repeat(film[:1], COUNT, axis=0)
    assert measure_clip(inputs(frozen), wanted)["clip_frames"] == pytest.approx(1, abs=1e-5)
    dark = film // 8
    embed = random_networks.clip()
    with torch.inference_mode():
        expected = float((embed(dark) * embed(film)).sum(axis=1).mean())
    assert measure_clip(inputs(dark), wanted)["clip_source"] == pytest.approx(expected, abs=1e-5)
    assert expected < 1 - 1e-6
    with pytest.raises(NotMeasuredError, match="no neighbours"):
        measure_clip(inputs(film[:1]), wanted)


def test_frechet_distances_are_torchmetrics_on_torch_fidelitys_features(film, random_models, random_networks):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import _compute_fid

    from ex4d.weights.catalogue import INCEPTION, part
    from ex4d.weights.places import path_of

    features = inception_features(Held(film), random_networks)
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048"],
        feature_extractor_weights_path=str(path_of(random_models, part(INCEPTION).files[0])),
    ).eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(film).permute(0, 3, 1, 2))[0].numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
    few = [features[:6, :24], features[6:, :24]]
    statistics = [
        torch.from_numpy(one).double() for half in few for one in (half.mean(axis=0), np.cov(half, rowvar=False))
    ]
    assert frechet_distance(*few) == pytest.approx(float(_compute_fid(*statistics)), rel=1e-4, abs=1e-8)
    assert frechet_distance(few[0], few[0]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(NotMeasuredError, match="needs 2 samples, not 1"):
        frechet_distance(features[:1], features)


def test_i3d_features_are_the_packages(film, random_models, random_networks):
    from cdfvd.fvd import get_i3d_logits
    from cdfvd.third_party.i3d.utils import load_i3d_model

    from ex4d.weights.catalogue import I3D, part
    from ex4d.weights.places import path_of

    network = load_i3d_model("cpu", str(path_of(random_models, part(I3D).files[0])))
    found: list[torch.Tensor] = []
    stats = SimpleNamespace(append_torch=lambda features, **_: found.append(features))
    get_i3d_logits(stats, network, film[None], device="cpu")
    features = i3d_features(Held(film), random_networks)
    assert features.shape == (1, 400)
    np.testing.assert_allclose(features, found[0].numpy(), rtol=1e-4, atol=1e-6)
    # The comparison means something only where features depend on what is shown, in which order and colours.
    for other in (film[::-1], film[..., ::-1]):
        changed = i3d_features(Held(np.ascontiguousarray(other)), random_networks)
        assert not np.allclose(features, changed, rtol=1e-2, atol=1e-4)
    with pytest.raises(NotMeasuredError, match="needs 10 frames of a video, and this one has 4"):
        i3d_features(Held(film[:4]), random_networks)


def test_the_distance_of_videos_is_cd_fvds_own():
    from cdfvd.fvd import cdfvd
    from cdfvd.utils.metric_utils import FeatureStats

    random = np.random.default_rng(0)
    sets = [random.normal(shift, scale, (50, 40)).astype(np.float32) for shift, scale in ((0, 1), (0.5, 1.3))]
    stats = [FeatureStats(capture_mean_cov=True) for _ in sets]
    for features, held in zip(sets, stats, strict=True):
        held.append(features)
    own: Any = SimpleNamespace()  # the method uses nothing of its object
    expected = float(cdfvd.compute_fvd_from_stats(own, *stats))
    assert video_distance(*sets) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(*sets) != pytest.approx(expected, rel=1e-3)  # whose covariances are over N - 1
    with pytest.raises(NotMeasuredError, match="needs 2 samples, not 1"):
        video_distance(sets[0][:1], sets[1])


def test_a_missing_network_is_named_with_the_command_that_fetches_it(tmp_path):
    networks = Networks(tmp_path, torch.device("cpu"))
    assert networks.why_missing("evaluation-i3d") == "its weights are not here: run ex4d models fetch evaluation-i3d"


def test_pictures_of_another_shape_are_cropped_in_the_middle_then_resized():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (fitted(image, (20, 20)) == 200).all()
    assert fitted(image, (100, 40)) is image
