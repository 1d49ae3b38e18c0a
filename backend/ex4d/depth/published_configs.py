"""The published models' configurations at full size, as data: for benchmarks without weights, and to check layouts."""

from __future__ import annotations

# tencent/DepthCrafter, config.json; Stable Video Diffusion's UNet has the same.
UNET = {
    "addition_time_embed_dim": 256,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1024,
    "down_block_types": (
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
    ),
    "in_channels": 8,
    "layers_per_block": 2,
    "num_attention_heads": (5, 10, 20, 20),
    "num_frames": 14,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "up_block_types": (
        "UpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
    ),
}

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

# depth-anything/Depth-Anything-V2-Small-hf, config.json.
DEPTH_ANYTHING_SMALL = {
    "backbone_config": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "image_size": 518,
        "num_attention_heads": 6,
        "out_indices": [3, 6, 9, 12],
        "patch_size": 14,
        "reshape_hidden_states": False,
    },
    "fusion_hidden_size": 64,
    "head_hidden_size": 32,
    "neck_hidden_sizes": [48, 96, 192, 384],
    "patch_size": 14,
    "reassemble_factors": [4, 2, 1, 0.5],
    "reassemble_hidden_size": 384,
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
