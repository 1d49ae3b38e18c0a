"""The garden of the sample clips, lit by its sun, with views farther round than `make_sample.py` keeps."""

from __future__ import annotations

from sample_garden import build_garden
from sample_views import EYE, PIVOT

from .filming import FilmedScene, Pose


def build() -> Pose:
    """The scene in the current, empty file."""
    return build_garden().pose


SCENE = FilmedScene("garden", build, eye=EYE, target=PIVOT, lit=True)
