"""Depth Anything 3 (arXiv 2511.10647): depth, poses and lenses of windows of frames, or metres of single ones."""
