"""Kernels and fused operations of the diffusion transformer and the VAE."""
