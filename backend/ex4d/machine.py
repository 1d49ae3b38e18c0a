"""Settings of a machine for everything that runs on it: folder of weights, GPU memory, licence.

Read once, by the command line or by a library call that names no settings, and then passed on; processes of the
service get it on their command lines. Imports nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

from ex4d.devices import DeviceError
from ex4d_core.licences import LICENCE_VARIABLE, Licence, as_licence, effective_licence, is_allowed, require_allowed

MODELS_VARIABLE = "EX4D_MODELS"
VRAM_LIMIT_VARIABLE = "EX4D_VRAM_LIMIT_GB"


def default_models_folder() -> Path:
    """The default folder of weights, in the user's data folder."""
    return Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "models"


@dataclass(frozen=True)
class MachineSettings:
    """The resources of this machine, and the permitted use of results.

    Attributes:
        models: folder of weights, absolute.
        vram_limit_gb: GPU memory (of 2**30 bytes each) that one process of the engine wan may take; None for all.
        licence: what results of this machine are for; None leaves it to the request.
        accepted: names of parts that are for research only and for which the owner holds another licence.

    Raises:
        DeviceError: the limit is not a number above 0.
        LicenceError: no such licence.
    """

    models: Path = field(default_factory=default_models_folder)
    vram_limit_gb: float | None = None
    licence: Licence | None = None
    accepted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", Path(self.models).expanduser().absolute())
        object.__setattr__(self, "accepted", tuple(self.accepted))
        if self.vram_limit_gb is not None and not 0 < self.vram_limit_gb < math.inf:
            raise DeviceError(f"invalid limit of GPU memory {self.vram_limit_gb!r}: expected gigabytes above 0")
        if self.licence is not None:
            as_licence(self.licence)

    @classmethod
    def from_environment(
        cls, models: Path | None = None, vram_limit_gb: float | None = None, accepted: tuple[str, ...] = ()
    ) -> MachineSettings:
        """The settings from environment variables, overridden by what is given.

        Raises:
            DeviceError, LicenceError: a variable has an invalid value.
        """
        licence = os.environ.get(LICENCE_VARIABLE)
        return cls(
            models or Path(os.environ.get(MODELS_VARIABLE) or default_models_folder()),
            _gigabytes(os.environ.get(VRAM_LIMIT_VARIABLE)) if vram_limit_gb is None else vram_limit_gb,
            as_licence(licence, LICENCE_VARIABLE) if licence else None,
            accepted,
        )

    def to_json(self) -> str:
        """As `from_json` takes it, for the command line of a process."""
        return json.dumps({**asdict(self), "models": str(self.models)})

    @classmethod
    def from_json(cls, text: str) -> MachineSettings:
        """The settings that another process wrote with `to_json`."""
        return cls(**json.loads(text))

    def licence_for(self, requested: str | None) -> Licence:
        """What a result is for, by a request's setting and this machine's; see `effective_licence`."""
        return effective_licence(requested, self.licence)

    def allows(self, name: str, commercial: bool, requested: str | None) -> bool:
        """Whether a part may be used here for a request; see `ex4d_core.licences.is_allowed`."""
        return is_allowed(name, commercial, self.licence_for(requested), self.accepted)

    def require_allowed(
        self, name: str, commercial: bool, requested: str | None, *, terms: str, instead: str = ""
    ) -> None:
        """Raises LicenceError where a part may not be used here; see `ex4d_core.licences.require_allowed`."""
        require_allowed(name, commercial, self.licence_for(requested), self.accepted, terms=terms, instead=instead)


def _gigabytes(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise DeviceError(f"invalid {VRAM_LIMIT_VARIABLE} {text!r}: expected gigabytes above 0") from error
