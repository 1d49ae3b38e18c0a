"""`RequestChecks`: whether a shot or a reconstruction that a client asks for can be computed from what is here."""

from __future__ import annotations

from typing import Any

from ex4d.service.blob_store import BlobStore
from ex4d.service.refusals import Refusal
from ex4d.service.uploads import Uploads
from ex4d_core.reconstruction import ReconstructionRequest, request_from_wire
from ex4d_core.scene_manifest import MAX_MANIFEST_BYTES, SceneManifest, is_sha256
from ex4d_core.shot import ShotRequest

_MAX_KEY = 128
# A live view is for a window, and its JPEG must fit in one message.
_MAX_VIEW_SIDE = 2048


class RequestChecks:
    """Checks the requests of one user, whose blobs are all that they may name.

    Every check may raise `Later`: a blob does not fit the request, and reading all of it, in a thread, tells which of
    the two is wrong.
    """

    def __init__(self, blobs: BlobStore, uploads: Uploads):
        """Of a user's blobs and uploads."""
        self._blobs, self._uploads = blobs, uploads

    def job(self, values: dict[str, Any]) -> tuple[ShotRequest | ReconstructionRequest, list[str]]:
        """A checked request of either kind, and the hashes of the blobs that it needs, which are all here."""
        request = request_from_wire(values)
        if isinstance(request, ShotRequest):
            manifest = self._manifest(request)
            parts = manifest.files_for(deep=request.draws_deep)
            return request, [request.scene, *(manifest.files[part].sha256 for part in parts)]
        for file in request.files:
            size = self._blobs.size(file.sha256)
            if size is None:
                raise Refusal("unknown-blob", f"{file.label!r} is not here; upload it", {"missing": [file.sha256]})
            if size != file.size:
                self._uploads.require_verified(file.sha256)
                raise Refusal("bad-request", f"{file.label!r} has {size} bytes, the request says {file.size}")
        return request, [file.sha256 for file in request.files]

    def shot(self, values: dict[str, Any]) -> ShotRequest:
        """A checked request, whose scene is here."""
        request = ShotRequest.from_wire(values)
        self._manifest(request)
        return request

    def view(self, values: dict[str, Any]) -> ShotRequest:
        """A checked request of one frame that fits a window, whose scene is here."""
        request = self.shot(values)
        if len(request.camera) != 1:
            text = f"a view has a camera of 1 frame, not {len(request.camera)}; submit a shot instead"
            raise Refusal("bad-request", text)
        if max(request.camera.width, request.camera.height) > _MAX_VIEW_SIDE:
            text = f"a view has at most {_MAX_VIEW_SIDE} x {_MAX_VIEW_SIDE} pixels; submit a shot instead"
            raise Refusal("bad-request", text)
        return request

    def _manifest(self, request: ShotRequest) -> SceneManifest:
        """The manifest of a shot's scene, which is here and covers the shot."""
        digest = request.scene
        size = self._blobs.size(digest)
        # A damaged one is not here; it is so small that it takes no thread.
        if size is None or (size <= MAX_MANIFEST_BYTES and not self._blobs.verify(digest)):
            text = f"scene {digest} is not here; upload its manifest"
            raise Refusal("unknown-scene", text, {"missing": ["manifest"]})
        manifest = SceneManifest.from_json(self._blobs.read(digest, 0, MAX_MANIFEST_BYTES + 1))
        parts = manifest.files_for(deep=request.draws_deep)
        sizes = {part: self._blobs.size(manifest.files[part].sha256) for part in parts}
        missing = [part for part, size in sizes.items() if size is None]
        if missing:
            text = f"scene {manifest.name!r} is incomplete here; upload its {', '.join(missing)}"
            raise Refusal("unknown-scene", text, {"missing": missing})
        for part, size in sizes.items():
            if size != manifest.files[part].size:
                self._uploads.require_verified(manifest.files[part].sha256)
                expected = manifest.files[part].size
                text = f"the {part} of scene {manifest.name!r} has {size} bytes, its manifest says {expected}"
                raise Refusal("bad-request", f"{text}; reconstruct the scene")
        request.require_footage(manifest.frames)
        return manifest


def require_key(key: str) -> None:
    """Check a client's own name for a job.

    Raises:
        Refusal: it is empty or too long.
    """
    if not 0 < len(key) <= _MAX_KEY:
        raise Refusal("bad-request", f"invalid key of {len(key)} characters: expected 1 to {_MAX_KEY}")


def require_hash(sha256: str) -> None:
    """Check the name of a blob.

    Raises:
        Refusal: it is not a SHA-256.
    """
    if not is_sha256(sha256):
        raise Refusal("bad-request", f"invalid blob name {sha256!r:.80}: expected a SHA-256 in lower-case hexadecimal")
