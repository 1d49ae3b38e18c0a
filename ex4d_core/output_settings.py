"""How renders and takes of more than 8 bits are written: file format, colour space, names and numbers."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from ex4d_core.errors import RequestError
from ex4d_core.schema import Length, Option, Range, Settings

OutputFormat = Literal["mp4", "exr", "png16", "prores4444", "dnxhr", "h265"]
ExrCompression = Literal["zip", "dwaa"]
MotionName = Literal["none", "forward", "backward", "both"]

SEQUENCES = ("exr", "png16")
# Endings of the files of formats of more than 8 bits.
SUFFIXES = {"exr": ".exr", "png16": ".png", "prores4444": ".mov", "dnxhr": ".mov", "h265": ".mp4"}
MAX_NUMBER = 9_999_999
MAX_SPACE = 100  # characters of a colour space's name
# Which formats have a setting; settings that are not here are for all of them.
_DEEP = tuple(SUFFIXES)
_FORMATS_WITH = {
    "compression": ("exr",),
    "position": ("exr",),
    "motion": ("exr",),
    "first_number": SEQUENCES,
    "output_space": _DEEP,
    "file_name": _DEEP,
    "file_version": _DEEP,
}
_NAME_FIELDS = {"shot": "shot", "version": 1, "frame": 1001}


@dataclass(frozen=True)
class OutputSettings(Settings):
    """How a render is written, and what a take is written as besides its frames of 8 bits.

    Attributes:
        format: "mp4" for 8 bits alone; all others have more. Renders and previews are written from a scene's half
            floats, and need a scene that has them; finals from what their decoder makes, before it is rounded.
        compression: of EXR files: "zip" keeps every bit, "dwaa" is far smaller and not exact.
        output_space: colour space of what is written, by its name in the OpenColorIO configuration; "" for the scene's
            own in EXR files, and for sRGB in others.
        file_name: of images, or of the movie, without its ending: a template with {shot}, {version} and, in sequences,
            {frame}, as of `str.format`.
        file_version: that {version} stands for.
        first_number: that {frame} stands for in the first image.
        position: write the seen points' positions in the scene's world into EXR files, too.
        motion: write motion vectors into EXR files, too: where the next ("forward") or the one before ("backward") of
            the new camera's frames shows the same point of the scene, less where this one does; pixels, u to the right
            and v up. Of the camera's motion alone: what moves in the footage counts as standing still.

    Raises:
        RequestError: a field of the wrong type or out of range, or that the format does not have.
    """

    format: Annotated[
        OutputFormat,
        Option(
            "mp4: 8 bits; exr, png16: images; prores4444, dnxhr, h265: movies of 10 bits; all but mp4 need a scene "
            "made with --bit-depth, or the engine wan"
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
    motion: Annotated[
        MotionName,
        Option("also write motion vectors of the new camera into EXR files, in pixels: to the next frame or the last"),
    ] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = []
        for name, allowed in _FORMATS_WITH.items():
            if self.format in allowed or getattr(self, name) == getattr(OutputSettings, name):
                continue
            if allowed != _DEEP:
                raise RequestError(f"{name} is for format {' or '.join(allowed)}, not {self.format}: leave it out")
            fixed.append(name)
        if fixed:
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
        # A colon names a drive or a stream on Windows, and names may come from elsewhere.
        is_plain = sample.isprintable() and ":" not in sample and not sample.startswith(".")
        if "/" in self.file_name or "\\" in self.file_name or not is_plain:
            raise RequestError(f"invalid file_name {self.file_name!r}: expected a name, not a path or a hidden file")
        if self.format in SEQUENCES and "frame" not in fields:
            raise RequestError(
                f"invalid file_name {self.file_name!r}: images need {{frame}} to have names of their own"
            )

    @property
    def is_sequence(self) -> bool:
        """Whether each frame is a file."""
        return self.format in SEQUENCES

    @property
    def is_deep(self) -> bool:
        """Whether there are files of more than 8 bits."""
        return self.format != "mp4"

    def named(self, shot: str) -> OutputSettings:
        """The same with {shot} filled in."""
        if not self.is_deep:
            return self
        plain = shot.replace("{", "{{").replace("}", "}}")
        return replace(self, file_name=_joined(self.file_name, lambda name: plain if name == "shot" else None))

    def in_format(self, output_format: OutputFormat) -> OutputSettings:
        """The same in another format, without the settings that it does not have; images of a movie are numbered."""
        kept = {name: getattr(self, name) for name, allowed in _FORMATS_WITH.items() if output_format in allowed}
        if output_format in SEQUENCES and "frame" not in _filled(self.file_name)[0]:
            kept["file_name"] += ".{frame:04}"
        elif output_format not in SEQUENCES and not _without_frame(kept.get("file_name", "")):
            kept.pop("file_name", None)
        return OutputSettings(output_format, **kept)

    def file_of(self, shot: str, index: int = 0) -> str:
        """Name of the image of a frame counted from 0, or of the movie; of more than 8 bits."""
        return self.name_of(shot, index) + SUFFIXES[self.format]

    def files(self, shot: str, frames: int) -> tuple[str, ...]:
        """Names of all images of so many frames, or of the movie; none where there are 8 bits alone."""
        if not self.is_deep:
            return ()
        return tuple(self.file_of(shot, index) for index in range(frames if self.is_sequence else 1))

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
    return _joined(template, lambda name: "" if name == "frame" else None)


def _joined(template: str, filling: Callable[[str], str | None]) -> str:
    """A template with some fields filled in; without one that is filled with nothing, nor the mark before it.

    Args:
        filling: by a field's name; None leaves the field.
    """
    parts = []
    for text, name, spec, conversion in string.Formatter().parse(template):
        parts.append(text.replace("{", "{{").replace("}", "}}"))
        filled = None if name is None else filling(name)
        if filled == "":
            parts[-1] = parts[-1].rstrip("._-")
        elif filled is not None:
            parts.append(filled)
        elif name is not None:
            parts.append("{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}")
    return "".join(parts)
