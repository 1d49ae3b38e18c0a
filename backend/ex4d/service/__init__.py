"""The backend service: a ZeroMQ front, a job store in SQLite, blobs by content hash, and worker processes.

Nothing here imports torch, so the service process stays small and starts at once; workers do (see
`ex4d.service.worker`).
"""

from ex4d.service.keys import KeyFiles, create_keys
from ex4d.service.pruning import prunable, prune, used
from ex4d.service.server import run_service
from ex4d.service.settings import ServiceError, ServiceSettings

__all__ = ["KeyFiles", "ServiceError", "ServiceSettings", "create_keys", "prunable", "prune", "run_service", "used"]
