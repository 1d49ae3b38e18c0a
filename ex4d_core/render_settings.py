"""How the DW-Mesh becomes colour and mask: settings of renders, views and shots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ex4d_core.errors import RequestError
from ex4d_core.licences import Licence
from ex4d_core.schema import Option, Range, Settings

MAX_SAMPLES = 4

RasterizerName = Literal["auto", "warp", "nvdiffrast"]
Convention = Literal["centered", "reference"]
OcclusionRule = Literal["angle", "boundary"]
OcclusionModel = Literal["watertight", "open", "thickness"]

RASTERIZERS: tuple[str, ...] = get_args(RasterizerName)
CONVENTIONS: tuple[str, ...] = get_args(Convention)
OCCLUSION_RULES: tuple[str, ...] = get_args(OcclusionRule)
OCCLUSION_MODELS: tuple[str, ...] = get_args(OcclusionModel)


@dataclass(frozen=True)
class RenderSettings(Settings):
    """How the DW-Mesh becomes colour and mask.

    Attributes:
        rasterizer: "auto" takes what is installed.
        convention: "centered", or "reference" for the published EX-4D code's (see `docs/conventions.md`).
        occlusion_rule: which faces hide what the footage never saw: "angle" (faces thinner than 2.5 degrees) or
            "boundary" (faces that are mostly depth).
        occlusion: what the space behind a discontinuity counts as: "watertight" (solid, as in EX-4D), "open" (empty)
            or "thickness" (solid to a plausible depth; "centered" convention and rasterizer "warp" only).
        samples: rays of each pixel, per axis, in takes and renders: their mean is its colour, and how many of them saw
            the footage its share of the mask. 1 in the "reference" convention, which is antialiased as EX-4D is;
            views and coverage have 1 whatever this is.
        licence: what the result is for; some rasterizers are for research only. None leaves it to the machine.
        clean: whether masks lose their specks and, in takes and renders, are held steady over time ("centered"
            convention only). None leaves it to the engine: wan's masks stay as they are, others are cleaned.
        remember: whether unseen pixels show what other frames of the clip saw there ("centered" convention only). None
            leaves it to the engine: preview does, wan does not; nor does a render without an engine.

    Raises:
        RequestError: a field of the wrong type or out of range, or an occlusion model that does not go with the others.
    """

    rasterizer: Annotated[RasterizerName, Option("auto takes the fastest that is installed and allowed")] = "auto"
    convention: Annotated[
        Convention,
        Option(
            "centered, or reference: exactly as the published EX-4D code, to reproduce the paper (default: the scene's)"
        ),
    ] = "centered"
    occlusion_rule: Annotated[
        OcclusionRule, Option("which faces hide what the footage never saw", aliases=("--filter_type",))
    ] = "angle"
    occlusion: Annotated[
        OcclusionModel,
        Option(
            "what the space behind a discontinuity counts as: solid (watertight), empty (open), or solid to a "
            "plausible depth (thickness; with rasterizer warp and convention centered only) (default: thickness; "
            "watertight with the engine wan, whose weights were trained so, and where there is no thickness)"
        ),
    ] = "watertight"
    samples: Annotated[
        int,
        Range(1, MAX_SAMPLES),
        Option("rays of each pixel, per axis: 3 is antialiased, with soft mask edges; 1 is fastest", metavar="N"),
    ] = 3
    licence: Annotated[
        Licence | None,
        Option(
            "intended use; commercial excludes research-only parts (default: $EX4D_LICENCE, else commercial)",
            aliases=("--license",),
        ),
    ] = None
    clean: Annotated[
        bool | None,
        Option("remove specks from masks and hold them steady over time (default: unless the engine is wan)"),
    ] = None
    remember: Annotated[
        bool | None,
        Option("show what other frames of the clip saw where one sees nothing (default: only with engine preview)"),
    ] = None

    @property
    def cleans(self) -> bool:
        """Whether masks are cleaned, where no engine decides."""
        return self.clean is not False and self.convention == "centered"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean and self.convention == "reference":
            raise RequestError(
                "clean does not exist in the reference convention: leave it out, or use the centered convention"
            )
        if self.convention == "reference":
            object.__setattr__(self, "samples", 1)
        if self.occlusion == "thickness" and self.convention == "reference":
            raise RequestError(
                "occlusion thickness does not exist in the reference convention: use watertight or open, or the "
                "centered convention"
            )
        if self.remember and self.convention == "reference":
            raise RequestError(
                "remember does not exist in the reference convention: leave it out, or use the centered convention"
            )
        if self.occlusion == "thickness" and self.rasterizer == "nvdiffrast":
            raise RequestError(
                "rasterizer nvdiffrast cannot draw occlusion thickness: use rasterizer warp, or watertight or open"
            )


def default_occlusion(engine: str, convention: str, rasterizer: str = "auto") -> OcclusionModel:
    """The occlusion model where nobody chose one.

    "thickness" is closest to what a camera would have seen (docs/measured/rendering.md), and EX-4D's weights were
    trained with masks of solid space. `RenderSettings` keep "watertight" as their own default, since requests of before
    leave it out.

    Args:
        engine: renders, coverage and views are previews.
        convention: "reference" has no thickness.
        rasterizer: "nvdiffrast" has none either.
    """
    if engine == "wan" or convention == "reference" or rasterizer == "nvdiffrast":
        return "watertight"
    return "thickness"
