"""A reconstruction as a `RemoteJob`: hashes and sends footage and depth, and installs the scene package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ex4d_core.client import Client
from ex4d_core.conversations import Conversation
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.reconstruction import ReconstructionPlan, ReconstructionRequest
from ex4d_core.remote_job import PACKAGE_FILES, RemoteJob, Submission
from ex4d_core.scene import Scene, move_package
from ex4d_core.scene_manifest import FILE_NAMES, MANIFEST, SceneError
from ex4d_core.transfers import hash_file


@dataclass
class RemoteScene(RemoteJob):
    """One reconstruction, whose package appears in ``folder`` when all of it has arrived.

    Attributes:
        plan: what to reconstruct; None when the job was submitted earlier.
        request: what was asked for, once all files are hashed.
        hashed: bytes of the source files hashed so far.
        hash_size: bytes to hash.
        arrivals: SHA-256 and size of the files that arrived, by name.
    """

    plan: ReconstructionPlan | None = None
    request: ReconstructionRequest | None = field(default=None, init=False)
    hashed: int = field(default=0, init=False)
    hash_size: int = field(default=0, init=False)
    arrivals: dict[str, tuple[str, int]] = field(default_factory=dict, init=False)

    @property
    def results_folder(self) -> Path:
        """A hidden folder beside ``folder``, until the package is complete."""
        return self.folder.parent / f".{self.folder.name}.{self.key[:8]}.partial"

    @property
    def stage(self) -> str:
        """As in `RemoteJob`, and "reading" while the source files are hashed."""
        return "reading" if self._hashing else super().stage

    @property
    def progress(self) -> float:
        """As in `RemoteJob`, and of the hashing before that."""
        if self._hashing:
            return self.hashed / self.hash_size if self.hash_size else 0.0
        return super().progress

    def cancel(self, client: Client | None) -> None:
        """As `RemoteJob.cancel`; what was never accepted leaves no files."""
        super().cancel(client)
        if self.withdrawn:
            self.discard()

    def conversation(self) -> Conversation[JobStatus]:
        """From hashing the files to the package in its place; returns the job's final status.

        Raises:
            SceneError: what arrived is not a complete package, or the folder is in use.
        """
        status = yield from super().conversation()
        if status.state == "done":
            self._install()
        else:
            self.discard()
        return status

    def discard(self) -> None:
        """Remove what has arrived of a package that will not be completed."""
        shutil.rmtree(self.results_folder, ignore_errors=True)

    def prepare(self) -> Conversation[Submission]:
        """The request with the hashes of all files, and the files."""
        if self.plan is None:
            raise RequestError(f"the scene {self.folder.name!r} cannot be sent without its footage; start again")
        hashes = yield from self._hash(self.plan.files)
        self.request = self.plan.request(hashes)
        return self.request.to_wire(), {sha256: path for path, sha256 in hashes.items()}

    def path_for(self, event: JobEvent) -> Path | None:
        """Files of a scene package."""
        return self.results_folder / event.name if event.kind == "file" and event.name in PACKAGE_FILES else None

    def arrived(self, event: JobEvent, path: Path) -> None:
        """Note a file, and what it was announced as."""
        super().arrived(event, path)
        self.arrivals[event.name] = (event.sha256, event.size)

    @property
    def _hashing(self) -> bool:
        return not self.job and not self.upload_size

    def _hash(self, paths: Sequence[Path]) -> Conversation[dict[Path, str]]:
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise RequestError(f"{missing} is missing; put it back, or choose the footage again")
        self.hash_size = sum(path.stat().st_size for path in paths)
        hashes = {}
        for path in paths:
            hashes[path] = yield from hash_file(path)
            self.hashed += path.stat().st_size
        return hashes

    def _install(self) -> None:
        partial = self.results_folder
        if not (partial / MANIFEST).exists() and (self.folder / MANIFEST).exists():
            self.discard()  # an earlier try came to here
            return
        scene = Scene.open(partial)
        for part, entry in scene.manifest.files.items():
            # What arrived before an interruption was checked then.
            known = self.arrivals.get(FILE_NAMES[part], (entry.sha256, entry.size))
            if known != (entry.sha256, entry.size):
                raise SceneError(f"the {part} that arrived does not match its manifest; reconstruct the scene again")
        move_package(partial, self.folder)
