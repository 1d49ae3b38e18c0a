"""The depth models that can be fetched: names, files, sizes and licences, as data.

Nothing here imports a model's code: listing, choosing and refusing work without `diffusers` or `transformers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ex4d.depth.depth_clip import DepthError
from ex4d.depth_names import DEPTH_ANYTHING, DEPTH_PRO, DEPTHCRAFTER, VIDEO_DEPTH_ANYTHING
from ex4d.machine import fetch_command
from ex4d_core.shot import LICENCES


class UnknownModelError(DepthError):
    """There is no estimator of this name."""


class WeightsError(DepthError):
    """Weights are missing, incomplete, damaged, or of another model. The message says what to download."""


class EstimatorUnavailableError(DepthError):
    """A model's Python packages are not installed, or its device is not there."""


class LicenceError(DepthError):
    """A model's licence does not allow what its result is wanted for."""


@dataclass(frozen=True)
class WeightsRepository:
    """A published repository and what is needed of it.

    Attributes:
        hub: its published name, OWNER/NAME.
        files: (path inside it, bytes); sizes of weights are what names, shapes and types of the tensors add up to.
    """

    hub: str
    files: tuple[tuple[str, int], ...]

    def folder(self, models: Path) -> Path:
        """Where it lies: MODELS/OWNER/NAME, or MODELS/NAME where that exists instead."""
        owner, _, name = self.hub.partition("/")
        full, short = models / owner / name, models / name
        return short if short.is_dir() and not full.is_dir() else full

    def missing(self, models: Path) -> tuple[str, ...]:
        """Paths of the files that are not there."""
        folder = self.folder(models)
        return tuple(path for path, _ in self.files if not (folder / path).is_file())


@dataclass(frozen=True)
class DepthModel:
    """What is known of an estimator before any of it is loaded.

    Attributes:
        name: as on the command line.
        title: for people.
        repositories: everything it needs.
        licence: the weights' licence, for display.
        commercial: whether that licence lets results be sold.
        packages: Python packages that must be importable.
        metric: gives metres rather than depth up to a factor.
        gives_focal: estimates the focal length, too.
        temporal: looks at many frames together; the others are made stable over time afterwards.
        gpu_gigabytes: (fixed, per megapixel at the working size), of GPU memory in half precision; what `auto` goes by.
        without_gpu: whether `auto` may choose it where there is no GPU.
        half: the half precision that the published code runs it in, as torch names it; on a GPU it is the default.
        about: one sentence on when to use it.
    """

    name: str
    title: str
    repositories: tuple[WeightsRepository, ...]
    licence: str
    commercial: bool
    packages: tuple[str, ...]
    metric: bool
    gives_focal: bool
    temporal: bool
    gpu_gigabytes: tuple[float, float]
    without_gpu: bool
    about: str
    half: str = "float16"

    @property
    def bytes(self) -> int:
        """To download, all in all."""
        return sum(size for repository in self.repositories for _, size in repository.files)

    def missing_files(self, models: Path) -> tuple[str, ...]:
        """OWNER/NAME/path of every file that is not in the folder of models."""
        return tuple(
            f"{repository.hub}/{path}" for repository in self.repositories for path in repository.missing(models)
        )

    def missing_packages(self) -> tuple[str, ...]:
        return tuple(package for package in self.packages if find_spec(package) is None)

    def require_packages(self) -> None:
        """Check that its code can be imported.

        Raises:
            EstimatorUnavailableError: it cannot; says how to install what is missing.
        """
        if packages := self.missing_packages():
            raise EstimatorUnavailableError(
                f"{self.title} needs {' and '.join(packages)}, which this Python lacks. Install the extra: "
                "pip install 'ex4d[depth]'"
            )

    def how_to_get(self, models: Path) -> str:
        """The command that fetches what is missing, for people; empty where nothing is."""
        if not self.missing_files(models):
            return ""
        return fetch_command(models, self.name)


_DEPTHCRAFTER = DepthModel(
    name=DEPTHCRAFTER,
    title="DepthCrafter",
    repositories=(
        WeightsRepository(
            "tencent/DepthCrafter",
            (("config.json", 1_000), ("diffusion_pytorch_model.safetensors", 3_049_246_164)),
        ),
        WeightsRepository(
            "stabilityai/stable-video-diffusion-img2vid",
            (
                ("feature_extractor/preprocessor_config.json", 1_000),
                ("image_encoder/config.json", 1_000),
                ("image_encoder/model.fp16.safetensors", 1_264_153_600),
                ("scheduler/scheduler_config.json", 1_000),
                ("vae/config.json", 1_000),
                ("vae/diffusion_pytorch_model.fp16.safetensors", 195_485_694),
            ),
        ),
    ),
    licence="DepthCrafter: academic research and education only; Stable Video Diffusion: Stability AI's own licence",
    commercial=False,
    packages=("diffusers", "transformers", "safetensors"),
    metric=False,
    gives_focal=False,
    temporal=True,
    gpu_gigabytes=(6.0, 30.0),  # measured: 22.3 GB at 1024x576; published: 26 GB
    without_gpu=False,
    about="what EX-4D was trained with: steady over long clips, slow, for a large GPU",
)

_VIDEO_DEPTH_ANYTHING = DepthModel(
    name=VIDEO_DEPTH_ANYTHING,
    title="Video Depth Anything (small)",
    repositories=(
        WeightsRepository(
            "depth-anything/Video-Depth-Anything-Small", (("video_depth_anything_vits.pth", 116_320_772),)
        ),
    ),
    licence="Apache-2.0",
    commercial=True,
    packages=("transformers",),
    metric=False,
    gives_focal=False,
    temporal=True,
    gpu_gigabytes=(1.0, 4.0),  # measured: 1.0 GB at 518x518
    without_gpu=True,
    about="fast, steady over time, free for any use: the first choice for paid work",
)

_DEPTH_PRO = DepthModel(
    name=DEPTH_PRO,
    title="Depth Pro",
    repositories=(
        WeightsRepository("apple/DepthPro-hf", (("config.json", 3_000), ("model.safetensors", 1_903_982_660))),
    ),
    licence="Apple's machine learning research model licence: research only",
    commercial=False,
    packages=("transformers", "safetensors"),
    metric=True,
    gives_focal=True,
    temporal=False,
    gpu_gigabytes=(5.0, 0.0),  # measured: 4.0 GB; always works at 1536x1536
    without_gpu=False,
    about="metres and the focal length from every frame by itself, with fine edges",
)

_DEPTH_ANYTHING = DepthModel(
    name=DEPTH_ANYTHING,
    title="Depth Anything V2 (small)",
    repositories=(
        WeightsRepository(
            "depth-anything/Depth-Anything-V2-Small-hf", (("config.json", 1_000), ("model.safetensors", 99_140_356))
        ),
    ),
    licence="Apache-2.0",
    commercial=True,
    packages=("transformers", "safetensors"),
    metric=False,
    gives_focal=False,
    temporal=False,
    gpu_gigabytes=(0.8, 1.0),  # measured: 0.5 GB at 518x518
    without_gpu=True,
    about="the lightest: every frame by itself, made steady afterwards",
)

# In the order of `depth_names.ESTIMATORS`, in which `auto` prefers them.
DEPTH_MODELS = (_DEPTHCRAFTER, _VIDEO_DEPTH_ANYTHING, _DEPTH_PRO, _DEPTH_ANYTHING)


def depth_model(name: str) -> DepthModel:
    """The model of a name.

    Raises:
        UnknownModelError: there is none.
    """
    for model in DEPTH_MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in DEPTH_MODELS)
    raise UnknownModelError(f"there is no depth estimator {name!r}. Choose auto, or one of {known}.")


def check_licence(model: DepthModel, setting: str, accepted: tuple[str, ...] = ()) -> None:
    """Refuses a research model under the `commercial` setting, unless its name is among `accepted`.

    Raises:
        LicenceError: it does not fit.
        ValueError: no such setting.
    """
    if setting not in LICENCES:
        raise ValueError(f"licence={setting!r} is not known: use one of {', '.join(LICENCES)}")
    if setting == "commercial" and not model.commercial and model.name not in accepted:
        free = ", ".join(one.name for one in DEPTH_MODELS if one.commercial)
        raise LicenceError(
            f"{model.title} may not be used for commercial work ({model.licence}). Choose {free}; or, for research, "
            f"say --licence research; or, if you have a licence of your own, --accept-licence {model.name}."
        )


def check_installed(model: DepthModel, models: Path) -> None:
    """Everything a model needs, packages and files, before any of it is loaded.

    Raises:
        EstimatorUnavailableError, WeightsError: with the commands that help.
    """
    model.require_packages()
    if missing := model.missing_files(models):
        raise WeightsError(
            f"the weights of {model.title} are not in {models}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing ({model.bytes / 1e9:.1f} GB in all; {model.licence}). "
            f"Fetch them with: {model.how_to_get(models)}"
        )
