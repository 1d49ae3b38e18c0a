"""Kernels of the diffusion transformer and the VAE: fused operations, fp8 matmul, fp8 attention."""
