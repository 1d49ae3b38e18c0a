"""Cameras: moves from presets, their keyframes, and the sampled camera of a shot."""
