"""Cameras from presets, and the evaluated camera of every frame, in the terms of the scene."""
