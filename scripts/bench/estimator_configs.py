"""The published estimators' configurations at full size, as data, where they are not the libraries' own defaults."""

from __future__ import annotations

# Stable Video Diffusion: vae/config.json, image_encoder/config.json, scheduler/scheduler_config.json.
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "force_upcast": True,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
IMAGE_ENCODER = {
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "intermediate_size": 5120,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
}
SCHEDULER = {
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
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# MoGe's configs/train/v2.json, as in the checkpoint of the large model.
_MOGE_LEVELS = [1024, 256, 128, 64, 32]
_MOGE_STACK = {
    "dim_res_blocks": _MOGE_LEVELS,
    "res_block_in_norm": "none",
    "res_block_hidden_norm": "none",
    "resamplers": ["conv_transpose", "conv_transpose", "conv_transpose", "bilinear"],
}
_MOGE_HEAD = {**_MOGE_STACK, "dim_in": _MOGE_LEVELS, "num_res_blocks": [0, 1, 1, 1, 0]}
MOGE_2 = {
    "encoder": {"backbone": "dinov2_vitl14", "intermediate_layers": [5, 11, 17, 23], "dim_out": 1024},
    "neck": {**_MOGE_STACK, "dim_in": [1026, 2, 2, 2, 2], "dim_out": None, "num_res_blocks": [0, 2, 2, 2, 0]},
    "points_head": {**_MOGE_HEAD, "dim_out": [None, None, None, None, 3]},
    "normal_head": {**_MOGE_HEAD, "dim_out": [None, None, None, None, 3]},
    "mask_head": {**_MOGE_HEAD, "dim_out": [None, None, None, None, 1]},
    "scale_head": {"dims": [1024, 1024, 1024, 1]},
    "remap_output": "exp",
    "num_tokens_range": [1200, 3600],
}

# apple/DepthPro-hf, config.json.
_DEPTH_PRO_BACKBONE = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "image_size": 384,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 16,
    "use_mask_token": False,
}
DEPTH_PRO = {
    "fusion_hidden_size": 256,
    "patch_size": 384,
    "use_fov_model": True,
    "image_model_config": _DEPTH_PRO_BACKBONE,
    "patch_model_config": _DEPTH_PRO_BACKBONE,
    "fov_model_config": _DEPTH_PRO_BACKBONE,
}
