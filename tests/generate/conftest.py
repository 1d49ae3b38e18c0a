"""Small Wan models with random weights, in files with the published names and keys, for the whole engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Toy models are too small to share out: on busy cores torch's threads wait for each other longer than they compute.
torch.set_num_threads(1)

WAN_FOLDER = "Wan-AI/Wan2.1-I2V-14B-480P"
SHARDS = 7
# Words that the toy tokenizer knows; any other becomes <unk>.
WORDS = ["a", "wide", "street", "at", "night", "with", "rain", "blurred", "static", "quality"]


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    # Letters of any script, one token each, as a stand-in for UMT5's pieces.
    vocabulary |= {chr(code): len(vocabulary) + index for index, code in enumerate(range(0x4E00, 0x4E00 + 64))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=100_000
    )
    fast.save_pretrained(folder)


def random_weights(layout: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Weights that keep signals alive through the layers: scaled by fan-in, norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in layout.items():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim < 2:
            weights[key] = 1 + 0.05 * noise if "norm" in key and key.endswith("weight") else 0.1 * noise
        elif "gamma" in key:
            weights[key] = 1 + 0.05 * noise
        else:
            weights[key] = noise / max(1, value[0].numel()) ** 0.5
    return weights


def toy_dit_sizes(layers: int = 2) -> dict[str, object]:
    return {
        "dim": 128,
        "in_dim": 36,
        "ffn_dim": 64,
        "out_dim": 16,
        "text_dim": 32,
        "freq_dim": 32,
        "eps": 1e-6,
        "patch_size": (1, 2, 2),
        "num_heads": 1,
        "num_layers": layers,
        "has_image_input": True,
    }


def write_toy_models(folder: Path, seed: int = 0) -> Path:
    """All that the engine needs, as it is published but small: seven shards, two .pth, the VAE, ex4d.ckpt."""
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_image_encoder import XLMRobertaCLIP
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import VideoVAE_
    from safetensors.torch import save_file

    from backend.generate.wan.camera_encoder import CameraEncoder
    from backend.generate.wan.models import export_adapter

    wan = folder / WAN_FOLDER
    wan.mkdir(parents=True)
    with torch.device("meta"):
        dit = WanModel(**toy_dit_sizes())
        layouts = {
            "models_t5_umt5-xxl-enc-bf16.pth": WanTextEncoder(96, 32, 32, 64, 2, 2, 8).state_dict(),
            "Wan2.1_VAE.pth": VideoVAE_(dim=8, z_dim=16).state_dict(),
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth": {
                **XLMRobertaCLIP(embed_dim=16, vision_mlp_ratio=0.05, vision_layers=1).state_dict(),
                "textual.norm.weight": torch.empty(4),
            },
        }
    weights = {key: value.bfloat16() for key, value in random_weights(dit.state_dict(), seed).items()}
    keys = sorted(weights)
    for shard in range(SHARDS):
        part = {key: weights[key] for key in keys[shard::SHARDS]}
        save_file(part, wan / f"diffusion_pytorch_model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors")
    for number, (name, layout) in enumerate(layouts.items(), start=1):
        torch.save({key: value.bfloat16() for key, value in random_weights(layout, seed + number).items()}, wan / name)
    with torch.device("meta"):
        dit.control_adapter = CameraEncoder(8, 128)
    (folder / "EX-4D").mkdir()
    torch.save(random_weights(export_adapter(dit, rank=4), seed + 9), folder / "EX-4D" / "ex4d.ckpt")
    write_tokenizer(wan / "google" / "umt5-xxl")
    return folder


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Path:
    """A folder of models, shared: tests that change files copy it."""
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    return write_toy_models(tmp_path_factory.mktemp("models") / "models")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The original's generation data, which is too large for the repository."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "golden"
    if not (folder / "ex4d_generation_dit.safetensors").is_file():
        pytest.skip("the original's generation data is not at hand")
    return folder
