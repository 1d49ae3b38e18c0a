"""Devices by name, such as "cuda:0+1": parses them, checks that this machine has them, and converts them for torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ex4d_core.errors import Ex4dError

if TYPE_CHECKING:
    import torch

# Several CPU ranks are not faster, but test without a GPU that sharing gives the same result.
_NAME = re.compile(r"auto|cpu(\+cpu)*|cuda(:\d{1,3}(\+\d{1,3})*)?")

# What to do where a library finds no GPU.
NO_CUDA = "{} finds no usable CUDA device: install an NVIDIA driver and a CUDA build of PyTorch, or use device cpu"


class DeviceError(Ex4dError):
    """A device's name is invalid, this machine has no such device, or its memory limit is invalid."""


@dataclass(frozen=True)
class Devices:
    """One device, or several of one kind that share a job.

    Attributes:
        names: of each, as torch takes them; "auto" is a GPU where PyTorch can use one, and else the processor.
    """

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Devices:
        """The devices of "auto", "cpu", "cuda", "cuda:N" or "cuda:N+M..."; raises DeviceError for any other text."""
        if not _NAME.fullmatch(text):
            raise DeviceError(f"invalid device {text!r}: expected auto, cpu, cuda, cuda:N, or cuda:N+M for several")
        first, *others = text.split("+")
        return cls((first, *(f"cuda:{other}" if other.isdigit() else other for other in others)))

    def __str__(self) -> str:
        """The text that `parse` takes."""
        return "+".join((self.first, *(name.removeprefix("cuda:") for name in self.names[1:])))

    @property
    def first(self) -> str:
        """The one that renders and estimates depth; only the engine wan shares its work among several."""
        return self.names[0]

    @property
    def is_cuda(self) -> bool:
        """Whether these are GPUs; "auto" is not known to be until it is resolved."""
        return self.first.startswith("cuda")

    def single(self) -> Devices:
        """These devices; raises DeviceError where they are several."""
        if len(self.names) > 1:
            raise DeviceError(f"device {self} names several, which only the engine wan can share: use one of them")
        return self

    def problem(self) -> str:
        """Why PyTorch cannot use all of these GPUs ("auto": any), and what to do; "" where it can."""
        import torch

        if self.first == "cpu":
            return ""
        if not torch.cuda.is_available():
            return NO_CUDA.format("PyTorch")
        count = torch.cuda.device_count()
        for name in self.names:
            if int(name.partition(":")[2] or 0) >= count:
                return f"there is no device {name}: this machine has cuda:0 to cuda:{count - 1}; use one of them or cpu"
        return ""

    def resolve(self) -> Devices:
        """These devices with "auto" decided and every GPU numbered, all of them on this machine.

        Raises:
            DeviceError: one of them is not there.
        """
        problem = self.problem()
        if self.first == "auto":
            return Devices(("cpu" if problem else "cuda:0",))
        if problem:
            raise DeviceError(problem)
        return Devices(("cuda:0",)) if self.first == "cuda" else self


def torch_device(name: str) -> torch.device:
    """The one device of a name, on this machine; raises DeviceError as `Devices` does."""
    import torch

    return torch.device(Devices.parse(name).single().resolve().first)


def cpu_cores() -> int:
    """Cores that this process may use: a container or a batch system may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
