"""The published files that the `wan` engine rests on: where they come from, what they are licensed for, their hashes.

Hashes written here were published by several independent users of the files; for the others the hub's own hash is
asked for when a file is fetched, and kept beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ex4d_core.shot import STEP_DISTILLED_LORA

WAN = "Wan-AI/Wan2.1-I2V-14B-480P"
CONVERTED = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"
EX4D = "yihouxiang/EX-4D"
LIGHTX2V = "lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v"

SHARDS = 7

# Which of DiffSynth's registered layouts each part has (`diffsynth.configs.model_configs`): MD5 of keys and shapes.
FINGERPRINTS = {
    "dit": "6bfcfb3b342cb286ce886889d519a77e",
    "text_encoder": "9c8818c2cbea55eca56c7b447df170da",
    "vae": "ccc42284ea13e1ad04693284c7a09be6",
    "image_encoder": "5941c53e207d62f20f9025686193c40b",
}


@dataclass(frozen=True)
class PublishedFile:
    """One file on the hub.

    Attributes:
        repository, name: on the hub.
        folder: where it lies below the folder of models.
        sha256: of its bytes, "" where it is not written down here.
        size: bytes, 0 where it is not written down here.
    """

    repository: str
    name: str
    folder: str
    sha256: str = ""
    size: int = 0

    @property
    def path(self) -> str:
        """Below the folder of models."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class PublishedPart:
    """Files that are used together.

    Attributes:
        name: as `ex4d models fetch NAME` takes it.
        what: for people.
        licence: of the weights.
        gigabytes: about how much there is to fetch.
        needed: whether the engine cannot do without it.
    """

    name: str
    what: str
    licence: str
    gigabytes: float
    files: tuple[PublishedFile, ...] = field(repr=False)
    needed: bool = True


def _wan(name: str, sha256: str = "", size: int = 0) -> PublishedFile:
    return PublishedFile(WAN, name, WAN, sha256, size)


_APACHE = "Apache-2.0: for any work"

PARTS: tuple[PublishedPart, ...] = (
    PublishedPart(
        "dit",
        "Wan2.1-I2V-14B-480P, the diffusion transformer",
        _APACHE,
        65.6,
        tuple(_wan(f"diffusion_pytorch_model-{part:05d}-of-{SHARDS:05d}.safetensors") for part in range(1, SHARDS + 1)),
    ),
    PublishedPart(
        "text_encoder",
        "UMT5-XXL, the text encoder, and its tokenizer",
        _APACHE,
        11.4,
        (
            _wan(
                "models_t5_umt5-xxl-enc-bf16.pth",
                "7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d",
                11_361_920_418,
            ),
            _wan(
                "google/umt5-xxl/tokenizer.json",
                "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b",
                16_837_417,
            ),
            _wan("google/umt5-xxl/spiece.model", "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458"),
            _wan(
                "google/umt5-xxl/tokenizer_config.json",
                "ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05",
            ),
            _wan(
                "google/umt5-xxl/special_tokens_map.json",
                "7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d",
            ),
        ),
    ),
    PublishedPart(
        "image_encoder",
        "CLIP ViT-H/14 (XLM-RoBERTa), the image encoder",
        _APACHE,
        4.8,
        (
            _wan(
                "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
                "628c9998b613391f193eb67ff68da9667d75f492911e4eb3decf23460a158c38",
                4_772_359_047,
            ),
        ),
    ),
    PublishedPart(
        "vae",
        "Wan2.1's video VAE",
        _APACHE,
        0.5,
        (_wan("Wan2.1_VAE.pth", "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981", 507_609_880),),
    ),
    PublishedPart(
        "ex4d",
        "EX-4D's LoRA and camera encoder",
        "see the model's page; EX-4D's repository is Apache-2.0",
        0.4,
        (PublishedFile(EX4D, "ex4d.ckpt", "EX-4D"),),
    ),
    PublishedPart(
        "fast",
        "LightX2V's step-distilled LoRA, for the preset fast",
        _APACHE,
        0.7,
        (PublishedFile(LIGHTX2V, f"loras/{STEP_DISTILLED_LORA}.safetensors", "."),),
        needed=False,
    ),
)


def part(name: str) -> PublishedPart:
    """The part of that name; KeyError where there is none."""
    return {entry.name: entry for entry in PARTS}[name]
