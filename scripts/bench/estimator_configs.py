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
