"""Small random-weight checkpoints in the published layouts: real file names and key names, scaled-down shapes.

Weights come from NumPy's seeded generator, so that they are the same on every machine: results that the original code
computed with them are kept under tests/data/golden.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ex4d.depth.depth_anything_3.network import NetworkSize as ViewsSize
from ex4d.depth.dinov2 import BackboneSize
from ex4d.depth.video_depth_anything.network import NetworkSize

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"
UNET = {
    "_class_name": "DiffusersUNetSpatioTemporalConditionModelDepthCrafter",
    "addition_time_embed_dim": 16,
    "block_out_channels": [32, 32],
    "cross_attention_dim": 16,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "in_channels": 8,
    "layers_per_block": 1,
    "num_attention_heads": [2, 2],
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 48,
    "sample_size": 8,
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
}
VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "latent_channels": 4,
    "layers_per_block": 1,
    "scaling_factor": 0.18215,
}
IMAGE_ENCODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "patch_size": 32,
    "projection_dim": 16,
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
PREPROCESSOR = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
DINO = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}


def random_weights(layout: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """float16 values for every tensor: gains near 1, offsets near 0, matrices that keep a signal's size."""
    weights = {}
    for index, (name, value) in enumerate(sorted(layout.items())):
        shape = tuple(value.shape)
        noise = np.random.default_rng([seed, index]).standard_normal(shape).astype(np.float32)
        if len(shape) < 2:
            is_gain = name.endswith(("weight", "gamma", "lambda1"))
            noise = 1 + 0.1 * noise if is_gain else 0.1 * noise
        else:
            noise *= 1.2 / np.sqrt(max(1, np.prod(shape[1:])))
        weights[name] = torch.from_numpy(noise).half()
    return weights


def write_depthcrafter(models: Path) -> None:
    """MODELS/tencent/DepthCrafter and MODELS/stabilityai/stable-video-diffusion-img2vid."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    own = models / "tencent" / "DepthCrafter"
    video = models / "stabilityai" / "stable-video-diffusion-img2vid"
    for folder in (own, *(video / name for name in ("vae", "image_encoder", "scheduler", "feature_extractor"))):
        folder.mkdir(parents=True)
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(**_plain(UNET)).state_dict()
        vae = AutoencoderKLTemporalDecoder(**_plain(VAE)).state_dict()
        encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER))
    (own / "config.json").write_text(json.dumps(UNET))
    save_file(random_weights(unet, 1), own / "diffusion_pytorch_model.safetensors")
    (video / "vae" / "config.json").write_text(json.dumps(VAE))
    save_file(random_weights(vae, 2), video / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    encoder.config.save_pretrained(video / "image_encoder")
    names = published_clip_names(encoder.state_dict())
    save_file(random_weights(names, 3), video / "image_encoder" / "model.fp16.safetensors")
    (video / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (video / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def write_depth_anything(models: Path) -> None:
    """MODELS/depth-anything/Depth-Anything-V2-Small-hf."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config={**DINO, "image_size": 70, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False},
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    network = DepthAnythingForDepthEstimation(config)
    network.load_state_dict({name: value.float() for name, value in random_weights(network.state_dict(), 4).items()})
    network.head.conv3.bias.data.fill_(2.0)  # or the last ReLU would leave little
    network.save_pretrained(models / "depth-anything" / "Depth-Anything-V2-Small-hf")


def write_depth_pro(models: Path) -> None:
    """MODELS/apple/DepthPro-hf, for images of 128x128 in place of 1536x1536."""
    from transformers import DepthProConfig, DepthProForDepthEstimation

    dino = {**DINO, "num_hidden_layers": 2, "image_size": 32, "patch_size": 4, "use_mask_token": False}
    config = DepthProConfig(
        fusion_hidden_size=8,
        patch_size=32,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[8, 8, 8],
        use_fov_model=True,
        **{f"{part}_model_config": dict(dino) for part in ("patch", "image", "fov")},
    )
    network = DepthProForDepthEstimation(config)
    network.load_state_dict({name: value.float() for name, value in random_weights(network.state_dict(), 5).items()})
    network.head.layers[4].bias.data.fill_(0.5)
    network.fov_model.head.layers[-1].bias.data.fill_(60.0)
    network.save_pretrained(models / "apple" / "DepthPro-hf")


TOY_VIDEO_NETWORK = NetworkSize(
    width=16, depth=4, heads=2, taps=(1, 2, 3, 4), channels=(32,) * 4, features=32, trained_size=70
)


def write_video_depth_anything(models: Path) -> None:
    """MODELS/depth-anything/Video-Depth-Anything-Small, with the weights that the original code was run with."""
    with np.load(GOLDEN / "video_depth_anything.npz") as arrays:
        named = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("weight/")}
    file = models / "depth-anything" / "Video-Depth-Anything-Small" / "video_depth_anything_vits.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name.removeprefix("weight/"): value for name, value in named.items()}, file)


TOY_VIEWS = ViewsSize(BackboneSize(32, 6, 2, 70), (2, 3, 4, 5), (8, 8, 16, 16), 16, alternate_from=2)
TOY_METRIC = ViewsSize(BackboneSize(32, 6, 2, 70), (2, 3, 4, 5), (8, 8, 16, 16), 16)


def depth_anything_3_weights(layout: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Values for every name, with depth of ordinary size, a field of view near a radian, and no half turns."""
    shapes = {name: torch.empty(tuple(shape), device="meta") for name, shape in layout.items()}
    weights = {name: value.float() for name, value in random_weights(shapes, 11).items()}
    for name, factor in {
        "head.scratch.output_conv2.2.weight": 0.2,
        "cam_dec.fc_fov.0.weight": 0.1,
        "cam_dec.fc_qvec.weight": 0.1,
    }.items():
        if name in weights:
            weights[name] *= factor
    for name, values in {"cam_dec.fc_fov.0.bias": [0.8, 1.1], "cam_dec.fc_qvec.bias": [0.0, 0.0, 0.0, 1.0]}.items():
        if name in weights:
            weights[name] = torch.tensor(values)
    return weights


def write_depth_anything_3(models: Path) -> None:
    """MODELS/depth-anything/DA3-SMALL and DA3METRIC-LARGE, with the weights that the package's code was run with."""
    from safetensors.torch import save_file

    with np.load(GOLDEN / "depth_anything_3.npz") as arrays:
        layouts = {kind: json.loads(str(arrays[f"{kind}/layout"])) for kind in ("views", "metric")}
    for kind, names in {"views": ("DA3-SMALL", "DA3-BASE"), "metric": ("DA3METRIC-LARGE",)}.items():
        named = {f"model.{name}": value for name, value in depth_anything_3_weights(layouts[kind]).items()}
        for name in names:
            folder = models / "depth-anything" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("{}")
            save_file(named, folder / "model.safetensors")


_MOGE_LEVELS = [32, 16, 8, 8, 4]
_MOGE_STACK = {
    "dim_res_blocks": _MOGE_LEVELS,
    "res_block_in_norm": "none",
    "res_block_hidden_norm": "none",
    "resamplers": ["conv_transpose", "conv_transpose", "conv_transpose", "bilinear"],
}


def _moge_head(channels: int) -> dict[str, object]:
    dim_out = [None, None, None, None, channels]
    return {**_MOGE_STACK, "dim_in": _MOGE_LEVELS, "dim_out": dim_out, "num_res_blocks": [0, 1, 1, 1, 0]}


TOY_BACKBONES = {"toy": BackboneSize(32, 4, 2, 70)}
MOGE_CONFIG = {
    "encoder": {"backbone": "toy", "intermediate_layers": [1, 2, 3], "dim_out": 32},
    "neck": {**_MOGE_STACK, "dim_in": [34, 2, 2, 2, 2], "dim_out": None, "num_res_blocks": [0, 2, 2, 2, 0]},
    "points_head": _moge_head(3),
    "normal_head": _moge_head(3),
    "mask_head": _moge_head(1),
    "scale_head": {"dims": [32, 32, 32, 1]},
    "remap_output": "exp",
    "num_tokens_range": [6, 24],
}


def moge_weights(layout: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Values for every name, of a map of points that a camera could see, solid in most places."""
    shapes = {name: torch.empty(tuple(shape), device="meta") for name, shape in layout.items()}
    weights = {name: value.float() for name, value in random_weights(shapes, 12).items()}
    weights["encoder.image_mean"] = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    weights["encoder.image_std"] = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    for head, factor in (("points_head", 0.03), ("mask_head", 0.1)):
        weights[f"{head}.output_blocks.4.weight"] *= factor
    weights["mask_head.output_blocks.4.bias"] += 3
    return weights


def pushed_points(focal: float, offset: float, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of points (60, 100, 3) of a curved wall before a lens, its depth pushed by -offset; and where it is solid.

    Above the wall is a sky whose points say nothing.

    Args:
        focal: in halves of the image's diagonal.
        noise: relative, of every point.
    """
    across, down = np.meshgrid(np.arange(100) * 2 - 99, np.arange(60) * 2 - 59)
    place = np.stack([across, down], axis=-1) / np.hypot(100, 60)
    depth = 3 + place[..., :1] + 0.5 * place[..., 1:] ** 2
    points = np.concatenate([place / focal * depth, depth - offset], axis=-1)
    points *= 1 + noise * np.random.default_rng(3).standard_normal(points.shape)
    solid = np.ones((60, 100), bool)
    solid[:10], points[:10] = False, 1e3
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(solid)


def write_moge(models: Path) -> None:
    """MODELS/Ruicheng/moge-2-vitl-normal and moge-2-vits-normal, with the weights that the package was run with."""
    with np.load(GOLDEN / "moge.npz") as arrays:
        weights = moge_weights(json.loads(str(arrays["layout"])))
    for name in ("moge-2-vitl-normal", "moge-2-vits-normal"):
        folder = models / "Ruicheng" / name
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"model_config": MOGE_CONFIG, "model": weights}, folder / "model.pt")


def published_clip_names(own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP's vision tower under the names of the published file, whatever the installed `transformers` calls them."""
    return {
        name if name.startswith(("vision_model.", "visual_")) else f"vision_model.{name}": own[name] for name in own
    }


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if not name.startswith("_")}
