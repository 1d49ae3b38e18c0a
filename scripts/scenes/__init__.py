"""Scenes of our own with ray-cast truth, built and filmed in bpy by `scripts/make_true_scenes.py`."""
