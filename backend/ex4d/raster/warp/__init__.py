"""The rasterizer on NVIDIA Warp: one kernel source for CPU and CUDA."""
