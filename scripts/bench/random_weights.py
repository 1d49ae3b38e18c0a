"""Writes models with random weights under the published names and keys, at full size or small enough for a CPU.

For measurements and tests: how long the engine takes and how much memory it needs do not depend on the weights' values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ex4d.generation.wan.camera_encoder import CameraEncoder
from ex4d.generation.wan.layouts import published_layout
from ex4d.generation.wan.networks import export_adapter
from ex4d.weights.catalogue import WAN, part
from ex4d_core.wan_settings import STEP_DISTILLED_LORA

# Words that the small tokenizer knows; any other becomes <unk>.
WORDS = ["a", "wide", "street", "at", "night", "with", "rain", "blurred", "static", "quality"]

_SHARDS = [file.path for file in part("dit").files]
_PTH = {name: part(name).files[0].path for name in ("text_encoder", "vae", "image_encoder")}


def random_weights(
    layout: dict[str, torch.Tensor], seed: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Weights that keep signals alive through the layers: scaled by fan-in, norms near 1; float32 on ``device``."""
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for key, value in layout.items():
        noise = torch.randn(value.shape, generator=generator, device=device)
        if value.ndim < 2:
            weights[key] = 1 + 0.05 * noise if "norm" in key and key.endswith("weight") else 0.1 * noise
        elif "gamma" in key:
            weights[key] = 1 + 0.05 * noise
        else:
            weights[key] = noise / max(1, value[0].numel()) ** 0.5
    return weights


def write_models(
    folder: Path,
    seed: int = 0,
    *,
    full_size: bool = False,
    heads: int = 1,
    layers: int | None = None,
    ffn: int = 64,
    device: torch.device | str = "cpu",
    dit_dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """All that the engine needs, as it is published: seven shards, two .pth, the VAE, ex4d.ckpt.

    Args:
        full_size: with the published sizes (52 GB); else a few megabytes, and a transformer of ``heads`` heads.
        layers: blocks of the transformer; by default all of them, or 2.
        ffn: width of its hidden layers, if it is not of full size.
        device: where the random numbers are drawn.
        dit_dtype: of the transformer's files.
    """
    from safetensors.torch import save_file

    wan = folder / WAN
    wan.mkdir(parents=True)
    if full_size:
        layouts = {name: published_layout(name) for name in ("dit", "ex4d", *_PTH)}
        for name in ("dit", "ex4d") if layers is not None else ():
            layouts[name] = {key: value for key, value in layouts[name].items() if _block_of(key) < layers}
    else:
        layouts = _small_layouts(small_dit_sizes(heads, layers or 2, ffn))

    def made(
        layout: dict[str, torch.Tensor], number: int, dtype: torch.dtype = torch.bfloat16
    ) -> dict[str, torch.Tensor]:
        # One tensor at a time, so that nothing larger than a shard is ever in memory.
        weights = {}
        for place, (key, value) in enumerate(layout.items()):
            drawn = random_weights({key: value}, 1000 * (seed + number) + place, device)[key]
            weights[key] = drawn.to(dtype).cpu()
        return weights

    keys = sorted(layouts["dit"])
    for shard, name in enumerate(_SHARDS):
        of_shard = {key: layouts["dit"][key] for key in keys[shard :: len(_SHARDS)]}
        save_file(made(of_shard, shard, dit_dtype), wan / name)
    for number, (model, name) in enumerate(_PTH.items(), start=len(_SHARDS)):
        torch.save(made(layouts[model], number), wan / name)
    (folder / "EX-4D").mkdir()
    adapter = {key: value.float() for key, value in made(layouts["ex4d"], 2 * len(_SHARDS)).items()}
    torch.save(adapter, folder / "EX-4D" / "ex4d.ckpt")
    write_tokenizer(wan / "google" / "umt5-xxl")
    return folder


def write_tiny_decoder(path: Path, seed: int = 0, *, full_size: bool = False) -> Path:
    """A tiny decoder under the published keys, and the start of its encoder; of few channels, or the published ones."""
    from safetensors.torch import save_file

    from ex4d.generation.wan.tiny_decoder import TinyDecoder

    layout = (TinyDecoder() if full_size else TinyDecoder((8, 8, 4, 4))).state_dict()
    weights = random_weights({**layout, "encoder.0.weight": torch.empty(4, 3, 3, 3)}, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half() for key, value in weights.items()}, path)
    return path


def write_fast_lora(models: Path, seed: int = 0, *, full_size: bool = False) -> Path:
    """The LoRA of the presets fast and live in a folder of models, for the transformer there."""
    from safetensors.torch import save_file

    layout = published_layout("ex4d") if full_size else _small_layouts(small_dit_sizes())["ex4d"]
    # Weights this small change the result little, as those of a LoRA do.
    weights = {key: 0.1 * value for key, value in random_weights(layout, seed).items() if ".lora_" in key}
    path = models / "loras" / f"{STEP_DISTILLED_LORA}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.bfloat16() for key, value in weights.items()}, path)
    return path


def _block_of(key: str) -> int:
    """The number of the block that a tensor belongs to; -1 for none."""
    number = key.partition("blocks.")[2].partition(".")[0]
    return int(number) if number.isdigit() else -1


def small_dit_sizes(heads: int = 1, layers: int = 2, ffn: int = 64) -> dict[str, Any]:
    """What `WanModel` is built with for a small transformer."""
    return {
        "dim": 128 * heads,
        "in_dim": 36,
        "ffn_dim": ffn,
        "out_dim": 16,
        "text_dim": 32,
        "freq_dim": 32,
        "eps": 1e-6,
        "patch_size": (1, 2, 2),
        "num_heads": heads,
        "num_layers": layers,
        "has_image_input": True,
    }


def _small_layouts(dit_sizes: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_image_encoder import XLMRobertaCLIP
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import VideoVAE_

    with torch.device("meta"):
        dit = WanModel(**dit_sizes)
        layouts = {
            "dit": dit.state_dict(),
            "text_encoder": WanTextEncoder(96, 32, 32, 64, 2, 2, 8).state_dict(),
            "vae": VideoVAE_(dim=8, z_dim=16).state_dict(),
            "image_encoder": {
                **XLMRobertaCLIP(embed_dim=16, vision_mlp_ratio=0.05, vision_layers=1).state_dict(),
                "textual.norm.weight": torch.empty(4),
            },
        }
        dit.control_adapter = CameraEncoder(8, dit_sizes["dim"])
    layouts["ex4d"] = export_adapter(dit, rank=4)
    return layouts


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of a few words in the published one's place."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    # Letters of another script, one token each, as a stand-in for UMT5's pieces.
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
