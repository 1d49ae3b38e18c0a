"""Builds the add-on's zip and finds Blenders, with the standard library alone.

Two doors lead here: `ex4d addon`, and `scripts/build_addon.py`, which loads this package by itself, without installing
anything. So nothing in here may import numpy, torch or another room of `ex4d`.
"""

from ex4d_core.errors import Ex4dError


class AddonError(Ex4dError):
    """The add-on cannot be built, or Blender's tool refuses it; the message says why."""
