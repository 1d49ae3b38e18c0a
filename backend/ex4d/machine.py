"""Settings of a machine for everything that runs on it: folders of weights, GPU memory, licence.

Read once, by the command line or by a library call that names no settings, and then passed on; processes of the
service get it on their command lines. Environment variables stand above the configuration file's table [machine].
Imports nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

from ex4d.config import CONFIG_VARIABLE, MACHINE_TABLE, ConfigError, config_file, read_config
from ex4d.devices import DeviceError
from ex4d_core.errors import Ex4dError
from ex4d_core.licences import LICENCE_VARIABLE, Licence, as_licence, effective_licence, is_allowed, require_allowed
from ex4d_core.local_token import TOKENS_VARIABLE

MODELS_VARIABLE = "EX4D_MODELS"
MODEL_PATH_VARIABLE = "EX4D_MODEL_PATH"
VRAM_LIMIT_VARIABLE = "EX4D_VRAM_LIMIT_GB"
CONVERTED_VARIABLE = "EX4D_CONVERTED_GB"

# Every variable that this package reads, its meaning, and the flag that goes before it; for `ex4d --help` and the docs.
ENVIRONMENT = {
    CONFIG_VARIABLE: ("configuration file, instead of ex4d.toml in the user's configuration folder", ""),
    TOKENS_VARIABLE: ("folder of tokens of backends on this machine, instead of the user's data folder", ""),
    MODELS_VARIABLE: ("folder of weights", "--models"),
    MODEL_PATH_VARIABLE: ("further folders of weights of the engine wan, separated as in PATH", "--model-path"),
    LICENCE_VARIABLE: ("what results of this machine are for: commercial or research", "--licence"),
    VRAM_LIMIT_VARIABLE: ("GPU memory that the engine wan may use, in GB", "--vram-limit"),
    CONVERTED_VARIABLE: ("disk space for converted weights beside the weights, in GB; 0: none", ""),
    "CUDA_VISIBLE_DEVICES": ("GPUs that PyTorch and a service see", "--device"),
}

# Keys of the configuration file's table [machine], and the types that TOML has for them.
_MACHINE_KEYS = {
    "models": (str,),
    "model_path": (list,),
    "licence": (str,),
    "vram_limit_gb": (int, float),
    "converted_gb": (int, float),
}
_TOML_NAMES = {(str,): "text", (list,): "a list of folders", (int, float): "a number"}


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
        model_path: further folders, absolute, that weights of the engine wan are looked for in by what files hold.
        converted_gb: disk space (of 10**9 bytes each) for converted weights beside the weights; 0 for none.

    Raises:
        DeviceError: the limit is not a number above 0, or the disk space one below it.
        LicenceError: no such licence.
    """

    models: Path = field(default_factory=default_models_folder)
    vram_limit_gb: float | None = None
    licence: Licence | None = None
    accepted: tuple[str, ...] = ()
    model_path: tuple[Path, ...] = ()
    # Of three presets with what they share: 34, 20 and 20 GB of a transformer.
    converted_gb: float = 80.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", Path(self.models).expanduser().absolute())
        object.__setattr__(self, "accepted", tuple(self.accepted))
        further = tuple(Path(folder).expanduser().absolute() for folder in self.model_path)
        object.__setattr__(self, "model_path", further)
        if self.vram_limit_gb is not None and not 0 < self.vram_limit_gb < math.inf:
            raise DeviceError(f"invalid limit of GPU memory {self.vram_limit_gb!r}: expected gigabytes above 0")
        if not 0 <= self.converted_gb < math.inf:
            raise DeviceError(f"invalid disk space for converted weights {self.converted_gb!r}: expected GB from 0")
        if self.licence is not None:
            as_licence(self.licence)

    @classmethod
    def from_environment(
        cls,
        models: Path | None = None,
        vram_limit_gb: float | None = None,
        accepted: tuple[str, ...] = (),
        model_path: Sequence[Path] = (),
    ) -> MachineSettings:
        """The settings from what is given, else from environment variables, else from the configuration file.

        Raises:
            DeviceError, LicenceError: a variable has an invalid value.
            ConfigError: the configuration file has.
        """
        file = cls._from_file()
        variable, licence = _gigabytes(VRAM_LIMIT_VARIABLE, "above 0"), os.environ.get(LICENCE_VARIABLE)
        converted = _gigabytes(CONVERTED_VARIABLE, "from 0")
        limits = (vram_limit_gb, variable, file.vram_limit_gb)
        further = [Path(one) for one in os.environ.get(MODEL_PATH_VARIABLE, "").split(os.pathsep) if one]
        return cls(
            models or Path(os.environ.get(MODELS_VARIABLE) or file.models),
            next((limit for limit in limits if limit is not None), None),
            as_licence(licence, LICENCE_VARIABLE) if licence else file.licence,
            accepted,
            tuple(model_path or further or file.model_path),
            file.converted_gb if converted is None else converted,
        )

    @classmethod
    def _from_file(cls) -> MachineSettings:
        """The settings of the configuration file alone.

        Raises:
            ConfigError: an unknown key or an invalid value.
        """
        table, where = read_config().get(MACHINE_TABLE, {}), f"{config_file()}: [{MACHINE_TABLE}]"
        for key, value in table.items():
            if key not in _MACHINE_KEYS:
                raise ConfigError(f"{where} has no key {key!r}: expected one of {', '.join(_MACHINE_KEYS)}")
            types = _MACHINE_KEYS[key]
            if isinstance(value, bool) or not isinstance(value, types):
                raise ConfigError(f"{where} {key} must be {_TOML_NAMES[_MACHINE_KEYS[key]]}, not {value!r}")
            if isinstance(value, list) and not all(isinstance(one, str) for one in value):
                raise ConfigError(f"{where} {key} must be a list of folders, not {value!r}")
        try:
            return cls(**table)
        except Ex4dError as error:
            raise ConfigError(f"{where} {error}") from error

    def to_json(self) -> str:
        """As `from_json` takes it, for the command line of a process."""
        return json.dumps(asdict(self), default=str)

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


def _gigabytes(variable: str, expected: str) -> float | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise DeviceError(f"invalid {variable} {text!r}: expected gigabytes {expected}") from error
