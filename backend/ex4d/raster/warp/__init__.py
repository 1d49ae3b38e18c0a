"""Kernels of the `warp` rasterizer: one source for CPU and CUDA, in Warp's own language within Python."""
