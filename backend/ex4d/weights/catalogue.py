"""Catalogue of all weights: parts of the engine wan, LoRAs, depth estimators, with files, hashes and licences.

Hashes written here were published by several independent users of the files; for the others the hub is asked
for its hash when a file is fetched, and the hash is kept beside it. What else an estimator needs, such as memory, is in
`ex4d.depth.depth_models`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from ex4d_core.wan_settings import STEP_DISTILLED_LORA

Kind = Literal["wan", "lora", "tiny", "depth", "evaluation"]

WAN = "Wan-AI/Wan2.1-I2V-14B-480P"
CONVERTED = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"

TINY_DECODER = "tiny_decoder"
DEPTHCRAFTER = "depthcrafter"
VIDEO_DEPTH_ANYTHING = "video-depth-anything"
DEPTH_PRO = "depth-pro"
DEPTH_ANYTHING = "depth-anything-v2"
DEPTH_ANYTHING_3_SMALL, DEPTH_ANYTHING_3_BASE = "depth-anything-3-small", "depth-anything-3-base"
DEPTH_ANYTHING_3_METRIC = "depth-anything-3-metric"
MOGE_2, MOGE_2_SMALL = "moge-2", "moge-2-small"
LPIPS_BACKBONE, INCEPTION = "evaluation-lpips", "evaluation-inception"
I3D, CLIP = "evaluation-i3d", "evaluation-clip"


@dataclass(frozen=True)
class PublishedFile:
    """One file on the hub.

    Attributes:
        repository, path: on the hub, OWNER/NAME and below it.
        size: bytes; exact where there is a hash, else approximate.
        sha256: of its bytes, "" if unknown.
        folder: where the repository lies below the folder of models; "" for its own name there.
        url: of a file that is not on the hub; `repository` and `path` then only say where it lies here.
    """

    repository: str
    path: str
    size: int = 0
    sha256: str = ""
    folder: str = ""
    url: str = ""


@dataclass(frozen=True)
class Part:
    """Files that are used together.

    Attributes:
        name: as ``ex4d models fetch NAME`` and ``--accept-licence NAME`` take it.
        title: for people.
        kind: what uses it.
        licence: of the weights, for people.
        commercial: whether that licence allows commercial use of results; see `ex4d_core.licences`.
        files: what is fetched; the first one holds the weights of parts that consist of one file.
        needed: whether ``ex4d models fetch`` without names downloads it.
        packages: Python packages that must be importable to use it; all are in its `extra`.
    """

    name: str
    title: str
    kind: Kind
    licence: str
    commercial: bool
    files: tuple[PublishedFile, ...] = field(repr=False)
    needed: bool = True
    packages: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files, about."""
        return sum(file.size for file in self.files)

    @property
    def repositories(self) -> tuple[str, ...]:
        """Where the files come from, each once, in order."""
        return tuple(dict.fromkeys(file.repository for file in self.files))

    @property
    def extra(self) -> str:
        """The extra of the package ex4d that has what fetches and runs it."""
        return {"depth": "depth", "evaluation": "evaluate"}.get(self.kind, "wan")

    def missing_packages(self) -> tuple[str, ...]:
        """Those of its Python packages that are not installed."""
        return tuple(package for package in self.packages if find_spec(package) is None)


_T5, _UMT5 = "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"
_CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_SHARDS = [f"diffusion_pytorch_model-{number:05d}-of-00007.safetensors" for number in range(1, 8)]

# Of each repository: files, with sizes and hashes. Sizes without a hash are about right: those of the estimators are
# what names, shapes and types of the tensors add up to.
_WAN_FILES = {
    **dict.fromkeys(_SHARDS, (9_371_428_571, "")),
    _T5: (11_361_920_418, "7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d"),
    f"{_UMT5}/tokenizer.json": (16_837_417, "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b"),
    f"{_UMT5}/spiece.model": (0, "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458"),
    f"{_UMT5}/tokenizer_config.json": (0, "ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05"),
    f"{_UMT5}/special_tokens_map.json": (0, "7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d"),
    _CLIP: (4_772_359_047, "628c9998b613391f193eb67ff68da9667d75f492911e4eb3decf23460a158c38"),
    "Wan2.1_VAE.pth": (507_609_880, "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981"),
}
_STABLE_VIDEO_DIFFUSION_FILES = {
    "feature_extractor/preprocessor_config.json": 1_000,
    "image_encoder/config.json": 1_000,
    "image_encoder/model.fp16.safetensors": 1_264_153_600,
    "scheduler/scheduler_config.json": 1_000,
    "vae/config.json": 1_000,
    "vae/diffusion_pytorch_model.fp16.safetensors": 195_485_694,
}
_APACHE = "Apache-2.0: for any work"
_DEPTHCRAFTER_TERMS = (
    "DepthCrafter: academic research and education only; Stable Video Diffusion: Stability AI's own licence"
)


def _files(repository: str, sizes: dict[str, int], folder: str = "") -> tuple[PublishedFile, ...]:
    return tuple(PublishedFile(repository, path, size, folder=folder) for path, size in sizes.items())


def _wan(name: str, title: str, *beginnings: str) -> Part:
    """A part of Wan2.1, of the files whose paths begin so."""
    files = tuple(PublishedFile(WAN, path, *known) for path, known in _WAN_FILES.items() if path.startswith(beginnings))
    return Part(name, title, "wan", _APACHE, True, files)


def _evaluation(name: str, title: str, licence: str, path: str, size: int, url: str) -> Part:
    """A network of one file that measures results, published outside the hub."""
    file = PublishedFile("evaluation", path, size, folder="evaluation", url=url)
    return Part(name, title, "evaluation", licence, True, (file,), needed=False)


# The estimators are in the order in which `auto` prefers them; the one that is needed is the first for any work.
PARTS: tuple[Part, ...] = (
    _wan("dit", "Wan2.1-I2V-14B-480P, the diffusion transformer", "diffusion_"),
    _wan("text_encoder", "UMT5-XXL, the text encoder, and its tokenizer", _T5, _UMT5),
    _wan("image_encoder", "CLIP ViT-H/14 (XLM-RoBERTa), the image encoder", _CLIP),
    _wan("vae", "Wan2.1's video VAE", "Wan2.1_VAE"),
    Part(
        "ex4d",
        "EX-4D's LoRA and camera encoder",
        "wan",
        "see the model's page; EX-4D's repository is Apache-2.0",
        True,
        _files("yihouxiang/EX-4D", {"ex4d.ckpt": 400_000_000}, folder="EX-4D"),
    ),
    Part(
        "fast",
        "LightX2V's step-distilled LoRA, for the preset fast",
        "lora",
        _APACHE,
        True,
        _files(
            "lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v",
            {f"loras/{STEP_DISTILLED_LORA}.safetensors": 700_000_000},
            folder=".",
        ),
        needed=False,
    ),
    Part(
        TINY_DECODER,
        "TAEW 2.1, a tiny decoder for drafts and the images of steps",
        "tiny",
        "MIT: for any work",
        True,
        _files("lightx2v/Autoencoders", {"taew2_1.safetensors": 22_642_902}),
        needed=False,
    ),
    Part(
        DEPTHCRAFTER,
        "DepthCrafter",
        "depth",
        _DEPTHCRAFTER_TERMS,
        False,
        _files("tencent/DepthCrafter", {"config.json": 1_000, "diffusion_pytorch_model.safetensors": 3_049_246_164})
        + _files("stabilityai/stable-video-diffusion-img2vid", _STABLE_VIDEO_DIFFUSION_FILES),
        needed=False,
        packages=("diffusers", "transformers", "safetensors"),
    ),
    Part(
        VIDEO_DEPTH_ANYTHING,
        "Video Depth Anything (small)",
        "depth",
        "Apache-2.0",
        True,
        _files("depth-anything/Video-Depth-Anything-Small", {"video_depth_anything_vits.pth": 116_320_772}),
        packages=("transformers",),
    ),
    Part(
        DEPTH_ANYTHING_3_BASE,
        "Depth Anything 3 (base)",
        "depth",
        "Apache-2.0",
        True,
        _files("depth-anything/DA3-BASE", {"config.json": 1_000, "model.safetensors": 541_466_396}),
        needed=False,
        packages=("safetensors",),
    ),
    Part(
        DEPTH_ANYTHING_3_SMALL,
        "Depth Anything 3 (small)",
        "depth",
        "Apache-2.0",
        True,
        _files("depth-anything/DA3-SMALL", {"config.json": 1_000, "model.safetensors": 137_197_852}),
        needed=False,
        packages=("safetensors",),
    ),
    Part(
        DEPTH_PRO,
        "Depth Pro",
        "depth",
        "Apple's machine learning research model licence: research only",
        False,
        _files("apple/DepthPro-hf", {"config.json": 3_000, "model.safetensors": 1_903_982_660}),
        needed=False,
        packages=("transformers", "safetensors"),
    ),
    Part(
        MOGE_2,
        "MoGe-2 (large)",
        "depth",
        "MIT",
        True,
        _files("Ruicheng/moge-2-vitl-normal", {"model.pt": 1_323_606_200}),
        needed=False,
    ),
    Part(
        DEPTH_ANYTHING_3_METRIC,
        "Depth Anything 3 (metric, large)",
        "depth",
        "Apache-2.0",
        True,
        _files("depth-anything/DA3METRIC-LARGE", {"config.json": 1_000, "model.safetensors": 1_336_685_576}),
        needed=False,
        packages=("safetensors",),
    ),
    Part(
        MOGE_2_SMALL,
        "MoGe-2 (small)",
        "depth",
        "MIT",
        True,
        _files("Ruicheng/moge-2-vits-normal", {"model.pt": 140_000_000}),
        needed=False,
    ),
    Part(
        DEPTH_ANYTHING,
        "Depth Anything V2 (small)",
        "depth",
        "Apache-2.0",
        True,
        _files("depth-anything/Depth-Anything-V2-Small-hf", {"config.json": 1_000, "model.safetensors": 99_140_356}),
        needed=False,
        packages=("transformers", "safetensors"),
    ),
    _evaluation(
        LPIPS_BACKBONE,
        "AlexNet, for LPIPS",
        "BSD-3-Clause",
        "alexnet-owt-7be5be79.pth",
        244_408_911,
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    _evaluation(
        INCEPTION,
        "Inception v3 as FID is defined by it",
        "Apache-2.0",
        "weights-inception-2015-12-05-6726825d.pth",
        95_628_359,
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    _evaluation(
        I3D,
        "I3D of Kinetics-400, for FVD",
        "Apache-2.0",
        "i3d_pretrained_400.pt",
        50_900_000,
        "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
    ),
    Part(
        CLIP,
        "CLIP ViT-B/32, for similarities",
        "evaluation",
        "MIT",
        True,
        _files("openai/clip-vit-base-patch32", {"config.json": 4_000, "model.safetensors": 605_157_884}),
        needed=False,
        packages=("transformers", "safetensors"),
    ),
)
EVALUATION = tuple(entry.name for entry in PARTS if entry.kind == "evaluation")
ESTIMATORS = tuple(entry.name for entry in PARTS if entry.kind == "depth")


def part(name: str) -> Part:
    """The part of that name; KeyError where there is none."""
    return {entry.name: entry for entry in PARTS}[name]
