"""How renders of more than 8 bits are written: file format, colour space, names and numbers."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Annotated, Literal

from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import MAX_SPACE
from ex4d_core.schema import Length, Option, Range, Settings

OutputFormat = Literal["mp4", "exr", "png16", "prores4444", "dnxhr", "h265"]
ExrCompression = Literal["zip", "dwaa"]

SEQUENCES = ("exr", "png16")
MAX_NUMBER = 9_999_999
_NAME_FIELDS = {"shot": "shot", "version": 1, "frame": 1001}


@dataclass(frozen=True)
class OutputSettings(Settings):
    """How a render is written.

    Attributes:
        format: "mp4" for movies of 8 bits; all others need a scene of more, and are written from its half floats.
        compression: of EXR files: "zip" keeps every bit, "dwaa" is far smaller and not exact.
        output_space: colour space of what is written, by its name in the OpenColorIO configuration; "" for the scene's
            own in EXR files, and for sRGB in others.
        file_name: of images, or of the movie, without its ending: a template with {shot}, {version} and, in sequences,
            {frame}, as of `str.format`.
        file_version: that {version} stands for.
        first_number: that {frame} stands for in the first image.
        position: write the seen points' positions in the scene's world into EXR files, too.

    Raises:
        RequestError: a field of the wrong type or out of range, or that the format does not have.
    """

    format: Annotated[
        OutputFormat,
        Option(
            "mp4: movies of 8 bits; exr, png16: images; prores4444, dnxhr, h265: movies of 10 bits; all but mp4 need a "
            "scene made with --bit-depth"
        ),
    ] = "mp4"
    compression: Annotated[ExrCompression, Option("of EXR files: zip keeps every bit, dwaa is smaller")] = "zip"
    output_space: Annotated[
        str,
        Length(MAX_SPACE),
        Option("colour space of the output (default: the scene's in EXR files, else sRGB)", metavar="SPACE"),
    ] = ""
    file_name: Annotated[
        str,
        Length(200, minimum=1),
        Option(
            "name without ending: {shot}, {version} and {frame} are filled in; movies have no {frame}",
            metavar="TEMPLATE",
        ),
    ] = "{shot}_v{version:03}.{frame:04}"
    file_version: Annotated[int, Range(0, MAX_NUMBER), Option("what {version} stands for", metavar="N")] = 1
    first_number: Annotated[
        int, Range(0, MAX_NUMBER), Option("what {frame} stands for in the first image", metavar="N")
    ] = 1001
    position: Annotated[bool, Option("also write positions in the scene's world into EXR files")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("compression", ("exr",)), ("position", ("exr",)), ("first_number", SEQUENCES)):
            if self.format not in allowed and getattr(self, name) != getattr(OutputSettings, name):
                raise RequestError(f"{name} is for format {' or '.join(allowed)}, not {self.format}: leave it out")
        fixed = [name for name in ("output_space", "file_name") if getattr(self, name) != getattr(OutputSettings, name)]
        if self.format == "mp4" and fixed:
            raise RequestError(
                f"movies of 8 bits are in sRGB and have fixed names: leave out {' and '.join(fixed)}, or choose a "
                "format other than mp4"
            )
        fields, sample = _filled(self.file_name)
        if strange := sorted(fields - _NAME_FIELDS.keys()):
            raise RequestError(
                f"invalid file_name {self.file_name!r}: unknown {{{strange[0]}}}; expected shot, version or frame"
            )
        if not self.is_sequence:
            sample = self.name_of("shot")
        if not sample:
            raise RequestError(f"invalid file_name {self.file_name!r}: movies have no {{frame}}, so add {{shot}}")
        if "/" in self.file_name or "\\" in self.file_name or sample.startswith("."):
            raise RequestError(f"invalid file_name {self.file_name!r}: expected a name, not a path or a hidden file")
        if self.format in SEQUENCES and "frame" not in fields:
            raise RequestError(
                f"invalid file_name {self.file_name!r}: images need {{frame}} to have names of their own"
            )

    @property
    def is_sequence(self) -> bool:
        """Whether each frame is a file."""
        return self.format in SEQUENCES

    def name_of(self, shot: str, index: int = 0) -> str:
        """Name, without ending, of the image of a frame counted from 0, or of the movie."""
        template = self.file_name if self.is_sequence else _without_frame(self.file_name)
        return template.format(shot=shot, version=self.file_version, frame=self.first_number + index)


def _filled(template: str) -> tuple[set[str], str]:
    """The fields of a template, and a name made by it; "" where fields are unknown."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        return fields, template.format(**_NAME_FIELDS) if fields <= _NAME_FIELDS.keys() else ""
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise RequestError(f"invalid file_name {template!r}: {error}") from error


def _without_frame(template: str) -> str:
    """A template for a movie: the field of the frame goes, with the dot, hyphen or underscore before it."""
    parts = []
    for text, name, spec, conversion in string.Formatter().parse(template):
        parts.append(text.replace("{", "{{").replace("}", "}}"))
        if name == "frame":
            parts[-1] = parts[-1].rstrip("._-")
        elif name is not None:
            parts.append("{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}")
    return "".join(parts)
