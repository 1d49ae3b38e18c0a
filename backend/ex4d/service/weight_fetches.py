"""Downloads of weights that clients ask for: one process for each, whose progress is what has arrived on the disk.

The process is the command ``ex4d models fetch``, which resumes an interrupted download; a cancelled one is resumed by
asking again.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from ex4d.installation import install_command
from ex4d.machine import MachineSettings
from ex4d.service.refusals import Refusal
from ex4d.subprocesses import module_command, stop_process
from ex4d.weights.catalogue import PARTS, Part
from ex4d.weights.fetch import arriving_path
from ex4d.weights.places import missing_files, path_of
from ex4d_core.wan_settings import is_weights_name
from ex4d_core.weight_messages import ADAPTER_KIND, MAX_PARTS, PermittedUse, WeightsPart, WeightsReply

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
_UNKNOWN_LICENCE = "not published here: look up its licence where it comes from"
_FORBIDDEN = (
    "this backend does not let clients fetch weights; its operator can fetch them there, or start it with "
    "--fetch-weights always"
)


class WeightFetches:
    """Which weights are here, and the downloads under way; to be used on the service's loop only."""

    def __init__(
        self,
        machine: MachineSettings,
        logs: Path,
        allowed: bool,
        elsewhere: Callable[[], tuple[Mapping[str, str], Mapping[str, str]]] = lambda: ({}, {}),
    ):
        """Start without downloads.

        Args:
            machine: whose folder of models the weights go into.
            logs: folder for what the downloads print.
            allowed: whether clients may start downloads.
            elsewhere: called for the parts that were found in other programs' folders, and for further adapters: a file
                of each, by name.
        """
        self._machine = machine
        self._logs = logs
        self._allowed = allowed
        self._found = elsewhere
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._reasons: dict[str, str] = {}
        # Parts of which nothing had to be downloaded: the process found them in another program's folders.
        self._elsewhere: set[str] = set()

    def describe(self) -> WeightsReply:
        """Every part of the catalogue, and how far its download is; and further adapters that finals can take."""
        for name in list(self._running):
            self._note_end(name)
        adapters = [_adapter(name, Path(file)) for name, file in self._found()[1].items() if is_weights_name(name)]
        return WeightsReply([*map(self._described, PARTS), *adapters[: MAX_PARTS - len(PARTS)]], self._allowed)

    def fetch(self, name: str) -> WeightsReply:
        """Start or resume the download of a part, unless it is under way.

        Raises:
            Refusal: clients may not, or there is no such part.
        """
        part = self._part(name)
        if not self._allowed:
            raise Refusal("bad-request", _FORBIDDEN)
        if name not in self._running and not self._is_here(part):
            self._reasons.pop(name, None)
            self._start(name)
        return self.describe()

    def cancel(self, name: str) -> WeightsReply:
        """Stop a download; what has arrived stays, and asking again resumes it.

        Raises:
            Refusal: clients may not, or there is no such part.
        """
        self._part(name)
        if not self._allowed:
            raise Refusal("bad-request", _FORBIDDEN)
        if name in self._running:
            self._end(name)
            log.info("cancelled the download of %s", name)
        return self.describe()

    def stop(self) -> None:
        """End all downloads, as when the service ends."""
        for name in list(self._running):
            self._end(name)

    def _start(self, name: str) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        output = open(self._log_of(name), "wb")  # noqa: SIM115 - open as long as the process
        further = [word for folder in self._machine.model_path for word in ("--model-path", str(folder))]
        command = module_command("ex4d", "models", "fetch", name, "--models", str(self._machine.models), *further)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self._running[name] = (process, output)
        log.info("fetching the weights of %s as process %d", name, process.pid)

    def _end(self, name: str) -> None:
        process, output = self._running.pop(name)
        stop_process(process, _STOP_SECONDS)
        output.close()

    def _note_end(self, name: str) -> None:
        process, output = self._running[name]
        if process.poll() is None:
            return
        del self._running[name]
        output.close()
        if process.returncode:
            lines = self._log_of(name).read_text(encoding="utf-8", errors="replace").splitlines()
            last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {process.returncode}")
            self._reasons[name] = last
            log.error("the weights of %s were not fetched: %s", name, last)
        else:
            log.info("the weights of %s are here", name)
            if missing_files(self._machine.models, self._part(name)):
                self._elsewhere.add(name)

    def _described(self, part: Part) -> WeightsPart:
        models = self._machine.models
        if part.name in self._running:
            state = "fetching"
        elif self._is_here(part):
            state = "here"
        else:
            state = "failed" if part.name in self._reasons else "missing"
        return WeightsPart(
            part.name,
            part.title,
            part.kind,
            part.licence,
            part.commercial,
            part.bytes,
            state,
            _arrived(models, part) if state != "here" or not missing_files(models, part) else part.bytes,
            self._reasons.get(part.name, ""),
            self._permitted_use(part),
            _lacks(part),
        )

    def _is_here(self, part: Part) -> bool:
        return (
            not missing_files(self._machine.models, part)
            or part.name in self._elsewhere
            or part.name in self._found()[0]
        )

    def _permitted_use(self, part: Part) -> PermittedUse:
        if self._machine.allows(part.name, part.commercial, "commercial"):
            return "any"
        return "research" if self._machine.allows(part.name, part.commercial, "research") else "none"

    def _part(self, name: str) -> Part:
        found = next((part for part in PARTS if part.name == name), None)
        if found is None:
            names = ", ".join(part.name for part in PARTS)
            raise Refusal("bad-request", f"unknown weights {name!r:.80}: expected {names}")
        return found

    def _log_of(self, name: str) -> Path:
        return self._logs / f"fetch-{name}.log"


def _adapter(name: str, file: Path) -> WeightsPart:
    """An adapter of EX-4D's kind that somebody put here; what it may be used for is not known."""
    size = 0
    with suppress(OSError):
        size = file.stat().st_size
    return WeightsPart(name, name, ADAPTER_KIND, _UNKNOWN_LICENCE, True, size, "here", size)


def _lacks(part: Part) -> str:
    """Python packages that a part needs and this environment lacks, with the command that installs them; "" if none."""
    packages = part.missing_packages()
    if not packages:
        return ""
    names = " and ".join(packages)
    return (
        f"{part.title} needs {names}, which the backend lacks; install them there with: {install_command(part.extra)}"
    )


def _arrived(models: Path, part: Part) -> int:
    """Bytes of a part that are here, complete files and arriving ones."""
    total = 0
    for path in (path_of(models, file) for file in part.files):
        for one in (path, arriving_path(path)):
            with suppress(OSError):
                total += one.stat().st_size
    return total
