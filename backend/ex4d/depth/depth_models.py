"""The depth estimators as data: what each one needs besides its weights, and what it produces.

Names, files, licences and packages are in `ex4d.weights.catalogue`. Nothing here imports an estimator's code: listing,
choosing and refusing work without `diffusers` or `transformers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ex4d.depth.depth_clip import DepthError
from ex4d.installation import install_command
from ex4d.weights.catalogue import (
    DEPTH_ANYTHING,
    DEPTH_ANYTHING_3_BASE,
    DEPTH_ANYTHING_3_METRIC,
    DEPTH_ANYTHING_3_SMALL,
    DEPTH_PRO,
    DEPTHCRAFTER,
    MOGE_2,
    MOGE_2_SMALL,
    VIDEO_DEPTH_ANYTHING,
    Part,
    part,
)
from ex4d.weights.errors import WeightsMissingError
from ex4d.weights.places import fetch_command, missing_files


class UnknownModelError(DepthError):
    """There is no estimator of this name."""


class EstimatorUnavailableError(DepthError):
    """A model's Python packages are not installed."""


@dataclass(frozen=True)
class DepthModel:
    """The properties of an estimator, known before it is loaded.

    Attributes:
        name: of its part in the catalogue of weights, as on the command line.
        code: "module:class" of its `ClipModel`, imported when it is loaded.
        gpu_gigabytes: (fixed, per megapixel at the working size), of GPU memory in half precision; what `auto` goes by.
        metric: gives metres rather than depth up to a factor.
        temporal: looks at many frames together; the others are aligned over time afterwards.
        without_gpu: whether `auto` may choose it where there is no GPU.
        poses: finds out where each frame was filmed from, and through which lens; see `ClipModel.cameras`.
        half: the half precision that the published code runs it in, as torch names it; on a GPU it is the default.
    """

    name: str
    code: str
    gpu_gigabytes: tuple[float, float]
    metric: bool = False
    temporal: bool = False
    without_gpu: bool = False
    poses: bool = False
    half: str = "float16"

    @property
    def part(self) -> Part:
        """Its weights: files and licence."""
        return part(self.name)

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.part.title

    @property
    def licence(self) -> str:
        """The weights' licence, for people."""
        return self.part.licence

    def missing_packages(self) -> tuple[str, ...]:
        """Python packages that are not installed."""
        return self.part.missing_packages()

    def require_packages(self) -> None:
        """Check that its code can be imported.

        Raises:
            EstimatorUnavailableError: it cannot; says how to install what is missing.
        """
        if packages := self.missing_packages():
            raise EstimatorUnavailableError(
                f"{self.title} needs {' and '.join(packages)}, which this Python lacks. Install the extra: "
                f"{install_command('depth')}"
            )


# In the order of the catalogue, in which `auto` prefers them. Memory as measured, at the size that each works at; where
# no figure stands beside it, from the sizes of weights and activations.
DEPTH_MODELS = (
    DepthModel(  # 22.3 GB; published: 26 GB
        DEPTHCRAFTER,
        "ex4d.depth.depthcrafter.estimator:DepthCrafter",
        temporal=True,
        gpu_gigabytes=(6.0, 30.0),
    ),
    DepthModel(  # 1.0 GB
        VIDEO_DEPTH_ANYTHING,
        "ex4d.depth.video_depth_anything.estimator:VideoDepthAnything",
        temporal=True,
        gpu_gigabytes=(1.0, 4.0),
        without_gpu=True,
    ),
    DepthModel(
        DEPTH_ANYTHING_3_BASE,
        "ex4d.depth.depth_anything_3.estimator:DepthAnything3Base",
        temporal=True,
        poses=True,
        gpu_gigabytes=(1.0, 10.0),
        half="bfloat16",
    ),
    DepthModel(
        DEPTH_ANYTHING_3_SMALL,
        "ex4d.depth.depth_anything_3.estimator:DepthAnything3Small",
        temporal=True,
        poses=True,
        gpu_gigabytes=(0.5, 6.0),
        without_gpu=True,
        half="bfloat16",
    ),
    DepthModel(  # 4.0 GB
        DEPTH_PRO,
        "ex4d.depth.per_image:DepthPro",
        metric=True,
        gpu_gigabytes=(5.0, 0.0),
    ),
    DepthModel(
        MOGE_2,
        "ex4d.depth.moge.estimator:MoGe2",
        metric=True,
        gpu_gigabytes=(3.0, 0.0),
    ),
    DepthModel(
        DEPTH_ANYTHING_3_METRIC,
        "ex4d.depth.depth_anything_3.estimator:DepthAnything3Metric",
        metric=True,
        gpu_gigabytes=(3.0, 0.0),
        half="bfloat16",
    ),
    DepthModel(
        MOGE_2_SMALL,
        "ex4d.depth.moge.estimator:MoGe2Small",
        metric=True,
        gpu_gigabytes=(1.0, 0.0),
    ),
    DepthModel(  # 0.5 GB
        DEPTH_ANYTHING,
        "ex4d.depth.per_image:DepthAnything",
        gpu_gigabytes=(0.8, 1.0),
        without_gpu=True,
    ),
)


def depth_model(name: str) -> DepthModel:
    """The model of a name.

    Raises:
        UnknownModelError: no model has this name.
    """
    for model in DEPTH_MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in DEPTH_MODELS)
    raise UnknownModelError(f"unknown depth estimator {name!r}: expected auto, or one of {known}")


def require_installed(model: DepthModel, models: Path) -> None:
    """Check that everything a model needs is here, packages and files, before any of it is loaded.

    Raises:
        EstimatorUnavailableError, WeightsMissingError: with the commands that help.
    """
    model.require_packages()
    if missing := missing_files(models, model.part):
        names = ", ".join(f"{file.repository}/{file.path}" for file in missing)
        raise WeightsMissingError(
            f"the weights of {model.title} are not in {models}: {names} {'is' if len(missing) == 1 else 'are'} missing "
            f"({model.part.bytes / 1e9:.1f} GB in all; {model.licence}). "
            f"Fetch them with: {fetch_command(models, model.name)}"
        )
