"""What jobs and views read from the blob store: scenes as packages, and every input verified before a job computes.

Disks and power cuts damage files without a sign. A damaged input would end as a wrong take or a crash in native code;
here it ends as a reason that says what to send again, and the blob store no longer claims to have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ex4d.progress import Progress
from ex4d.service.blob_store import BlobStore
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import MAX_MANIFEST_BYTES, SceneError, SceneManifest

VERIFY_STAGE = "verify"


class DamagedInputError(Ex4dError):
    """Files of a job were damaged on the backend's disk, or deleted; sent again, they are as good as new."""


@dataclass(frozen=True)
class StoredInput:
    """A blob that a job reads.

    Attributes:
        sha256, size: of the blob.
        what: it is, for people: "'shot_0001.png'", "the depth of scene 'garden'".
    """

    sha256: str
    size: int
    what: str


def open_scene(blobs: BlobStore, digest: str, *, deep: bool = False) -> Scene:
    """The scene with a manifest's hash; its files are the blobs themselves, of which only the sizes are checked.

    Args:
        deep: with its deep colours, if it has them.

    Raises:
        SceneError: the manifest or one of its files is missing, or differs from what the manifest says.
    """
    if not blobs.verify(digest):
        raise SceneError(f"the manifest of scene {digest} is missing; upload the scene again")
    data = blobs.read(digest, 0, MAX_MANIFEST_BYTES + 1)
    manifest = SceneManifest.from_json(data)
    parts = manifest.files_for(deep=deep)
    for part in parts:
        entry = manifest.files[part]
        if blobs.size(entry.sha256) != entry.size:
            raise SceneError(f"the {part} of scene {manifest.name!r} is missing; upload the scene again")
        blobs.touch(entry.sha256)
    return Scene(data, {part: blobs.path(manifest.files[part].sha256) for part in parts})


def scene_inputs(scene: Scene, *, deep: bool = False) -> list[StoredInput]:
    """The files of a scene that a take reads."""
    manifest = scene.manifest
    named = [(manifest.files[part], f"the {part} of scene {manifest.name!r}") for part in manifest.files_for(deep=deep)]
    return [StoredInput(entry.sha256, entry.size, what) for entry, what in named]


def verify_inputs(blobs: BlobStore, inputs: Iterable[StoredInput], progress: Progress) -> None:
    """Read all inputs of a job that were not read since they last changed, and compare their hashes.

    Args:
        blobs: that has them; it deletes those that are damaged.
        inputs: of the job.
        progress: called in `VERIFY_STAGE` with megabytes read, and in all; not for a few megabytes.

    Raises:
        DamagedInputError: names those that are damaged or missing.
    """
    inputs = list(inputs)
    total, done, damaged = sum(one.size for one in inputs), 0, []
    for one in inputs:
        before = done

        def step(read: int, before: int = before) -> None:
            progress(VERIFY_STAGE, (before + read) // 10**6, total // 10**6)

        if not blobs.verify(one.sha256, step):
            damaged.append(one.what)
        done += one.size
    if damaged:
        names = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
        raise DamagedInputError(
            f"{names}: damaged on the backend's disk, and removed there; start the job again, which sends the missing "
            "files once more. If it happens again, check the disk of the backend"
        )
