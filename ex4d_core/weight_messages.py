"""The messages about weights: which a service has, and the download of those that are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ex4d_core.job_status import Line, Reason
from ex4d_core.message_base import Message, Reply
from ex4d_core.schema import Length, Range

MAX_PARTS = 200
# Of parts that are no part of the catalogue: adapters that finals can take instead of EX-4D's, by their names.
ADAPTER_KIND = "adapter"
# A part has many files: up to a petabyte.
_Bytes = Annotated[int, Range(0, 10**15)]

WeightsState = Literal["here", "missing", "fetching", "failed"]
# What a part may be used for on the service's machine: "none" where that is for commercial work, and the part is not.
PermittedUse = Literal["any", "research", "none"]


@dataclass(frozen=True)
class DescribeWeights(Message):
    """Asks which weights the service has. Services up to version 0.1.0 refuse it as an unknown type."""


@dataclass(frozen=True)
class FetchWeights(Message):
    """Starts or resumes the download of a part of the weights; the service's operator may forbid it."""

    part: str


@dataclass(frozen=True)
class CancelFetch(Message):
    """Stops the download of a part; what has arrived stays for the next `FetchWeights`."""

    part: str


@dataclass(frozen=True)
class WeightsPart:
    """A part of the weights: a depth estimator, a part of the engine wan, or another adapter for it.

    Attributes:
        name, title: for requests, and for people.
        kind: "depth", "wan", "lora", "evaluation" or `ADAPTER_KIND`.
        licence: for people.
        commercial: whether that licence allows commercial use of results.
        bytes: of all files, about.
        done: bytes that are here.
        reason: why the last download failed, for people.
        use: what results it may be used for on this machine.
        lacks: what the machine lacks besides the weights, and the command that helps, for people; "" if nothing.
    """

    name: Line
    title: Line
    kind: Line
    licence: Line
    commercial: bool
    bytes: _Bytes
    state: WeightsState = "missing"
    done: _Bytes = 0
    reason: Reason = ""
    use: PermittedUse = "any"
    lacks: Reason = ""


@dataclass(frozen=True)
class WeightsReply(Reply):
    """The answer to `DescribeWeights`, `FetchWeights` and `CancelFetch`.

    Attributes:
        parts: in the order of preference.
        allowed: whether clients may fetch them.
    """

    parts: Annotated[list[WeightsPart], Length(MAX_PARTS)]
    allowed: bool
